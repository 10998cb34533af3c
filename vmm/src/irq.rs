//! A virtio-mmio device's interrupt line: an irqfd, and the status bits that the driver reads and acknowledges. Raised
//! on device threads, read on vCPU threads.
//!
//! Virtio 1.2, sections 4.2.2 (InterruptStatus, InterruptACK, ConfigGeneration) and 2.1 (DEVICE_NEEDS_RESET).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::device::Interrupt;
use crate::faults::Faults;
use crate::lock::lock;
use crate::mmio::spec::{INTERRUPT_CONFIG_CHANGED, INTERRUPT_USED_BUFFER};

/// One interrupt line.
pub struct IrqLine {
    status: AtomicU32,
    config: Mutex<Vec<u8>>,
    config_generation: AtomicU32,
    needs_reset: AtomicBool,
    faults: Faults,
    event: EventFd,
}

impl IrqLine {
    /// A quiet line of a device whose driver reads `config`.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(config: Vec<u8>) -> io::Result<Self> {
        Ok(Self {
            status: AtomicU32::new(0),
            config: Mutex::new(config),
            config_generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            faults: Faults::default(),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    /// The descriptor to make an irqfd of.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Bits not yet acknowledged.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// The driver has seen `bits`.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// The configuration space.
    pub fn config(&self) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.config)
    }

    /// Changes with the configuration space.
    pub fn config_generation(&self) -> u32 {
        self.config_generation.load(Ordering::SeqCst)
    }

    /// Whether the device has asked for a reset.
    pub fn wants_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// As after power-on; the configuration's generation goes on.
    pub fn reset(&self) {
        self.needs_reset.store(false, Ordering::SeqCst);
        self.status.store(0, Ordering::SeqCst);
    }

    /// Linux ignores an interrupt whose status bit is not set, so the bit comes first.
    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // Fails only when the counter would overflow: then the interrupt is on its way.
        let _ = self.event.write(1);
    }
}

impl Interrupt for IrqLine {
    fn used_buffer(&self) {
        self.raise(INTERRUPT_USED_BUFFER);
    }

    fn set_config(&self, config: Vec<u8>, tells: bool) {
        // Under one lock: who reads the one half finds that the other is of another generation.
        let mut current = self.config();
        *current = config;
        self.config_generation.fetch_add(1, Ordering::SeqCst);
        drop(current);
        if tells {
            self.raise(INTERRUPT_CONFIG_CHANGED);
        }
    }

    fn needs_reset(&self, why: &str) {
        // A guest may reset a device and break it again as often as it likes.
        self.faults
            .log(format_args!("a device needs a reset: {why}"));
        self.needs_reset.store(true, Ordering::SeqCst);
        self.raise(INTERRUPT_CONFIG_CHANGED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn irq_line_acknowledged_bit_clears_and_the_other_stays() {
        let line = IrqLine::new(vec![]).unwrap();
        line.used_buffer();
        line.set_config(vec![1], false);
        line.set_config(vec![2], true);
        line.acknowledge(INTERRUPT_USED_BUFFER);
        assert_eq!(line.status(), INTERRUPT_CONFIG_CHANGED);
        assert_eq!(line.event().read().unwrap(), 2);
        assert_eq!(line.config_generation(), 2);
        assert_eq!(*line.config(), [2]);
    }

    #[test]
    fn irq_line_reset_forgets_needs_reset() {
        let line = IrqLine::new(vec![]).unwrap();
        line.needs_reset("it is a test");
        assert!(line.wants_reset());
        line.reset();
        assert!(!line.wants_reset());
        assert_eq!(line.status(), 0);
    }
}

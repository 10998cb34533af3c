//! What a guest access that KVM does not serve itself reaches: a virtio-mmio slot, or an I/O port (see `ports`). Called on
//! vCPU threads.

use std::sync::{Mutex, MutexGuard};

use crate::console::Console;
use crate::layout::{SLOTS, slot_at};
use crate::lock::lock;
use crate::mmio::transport::Transport;

/// The machine as its vCPUs see it.
pub struct Bus {
    /// What is behind the serial port.
    pub console: Mutex<Console>,
    /// The devices in their slots.
    pub slots: [Option<Mutex<Transport>>; SLOTS],
}

impl Bus {
    /// Fills `data` from `address`; all ones where nothing is.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.slot(address) {
            Some((transport, offset)) => transport.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes `data` to `address`.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((mut transport, offset)) = self.slot(address) {
            transport.write(offset, data);
        }
    }

    /// Tells every device to give itself back.
    pub fn signal_stop(&self) {
        self.slots
            .iter()
            .flatten()
            .for_each(|slot| lock(slot).signal_stop());
    }

    fn slot(&self, address: u64) -> Option<(MutexGuard<'_, Transport>, u64)> {
        let (index, offset) = slot_at(address)?;
        Some((lock(self.slots.get(index)?.as_ref()?), offset))
    }
}

//! The memory device: memory that the machine is given, and gives back, while it runs. The host says how much there is to
//! be; the guest's driver plugs and unplugs blocks until there is.
//!
//! Virtio 1.2, section 5.15. Requests are served on the device's own thread; the host speaks from another. Blocks that are not
//! plugged are addresses without memory: neither the guest nor a device can use them, whatever the guest says.

mod blocks;
mod spec;

use std::sync::{Arc, Mutex, MutexGuard};

use virtio_queue::{DescriptorChain, Queue};
use vmm_sys_util::eventfd::EventFd;

use self::blocks::{Blocks, Request};
use self::spec::*;
use crate::device::{Activation, Device, Interrupt, Stop};
use crate::lock::lock;
use crate::memory::{self, GuestMemory};
use crate::requests::{self, Told};

/// The driver has one request at a time.
const QUEUE_SIZE: u16 = 16;

/// The device.
pub struct Mem {
    size: Size,
    changed: EventFd,
}

/// The host's side of it: how much is to be plugged, and whether it is.
#[derive(Clone)]
pub struct Size(Arc<Mutex<State>>);

struct State {
    blocks: Blocks,
    /// What was requested is the most, not the least.
    shrinks: bool,
    /// The host could not plug or unplug something, which is told once.
    failed: bool,
    /// Of the running device: its driver is told what is requested.
    driver: Option<Arc<dyn Interrupt>>,
}

impl Mem {
    /// A device for a machine that begins with `memory_mib` and can be given `pluggable_mib` more. It signals `changed` when
    /// the guest has plugged or unplugged something.
    pub fn new(memory_mib: u32, pluggable_mib: u32, changed: EventFd) -> Self {
        let state = State {
            blocks: Blocks::new(memory::pluggable(memory_mib, pluggable_mib)),
            shrinks: false,
            failed: false,
            driver: None,
        };
        let size = Size(Arc::new(Mutex::new(state)));
        Self { size, changed }
    }

    /// The host's side.
    pub fn size(&self) -> Size {
        self.size.clone()
    }

    /// Answers one request; how many bytes were written to the guest.
    fn answer(&self, memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>) -> u32 {
        requests::exchange(memory, chain, |request: Option<[u8; REQUEST_BYTES]>| {
            let request = request.and_then(|request| self.size.state().blocks.parse(&request));
            let (kind, of_blocks) = match request {
                Some(request) => self.execute(memory, request),
                None => (VIRTIO_MEM_RESP_ERROR, 0),
            };
            [kind, 0, 0, 0, of_blocks].map(u16::to_le_bytes).concat()
        })
    }

    /// Carries out a request; type of the answer, and state of the blocks for who asks for that. The host's side is not held up
    /// meanwhile, however long it takes: this thread alone plugs and unplugs.
    fn execute(&self, memory: &GuestMemory, request: Request) -> (u16, u16) {
        let state = self.size.state();
        if let Some(refusal) = state.blocks.refusal(&request) {
            return (refusal, 0);
        }
        let Request { kind, blocks } = request;
        if kind == VIRTIO_MEM_REQ_STATE {
            return (VIRTIO_MEM_RESP_ACK, state.blocks.state(&blocks));
        }
        let (plugged, span) = (kind == VIRTIO_MEM_REQ_PLUG, state.blocks.span(&blocks));
        drop(state);
        let done = memory::set_usable(memory, span, plugged);
        let mut state = self.size.state();
        if let Err(error) = done {
            if !std::mem::replace(&mut state.failed, true) {
                tracing::warn!("plug or unplug {} bytes of memory: {error}", span.1);
            }
            return (VIRTIO_MEM_RESP_BUSY, 0);
        }
        state.blocks.set(blocks, plugged);
        state.show(false);
        drop(state);
        // Fails only when the counter would overflow: then it is signalled.
        let _ = self.changed.write(1);
        (VIRTIO_MEM_RESP_ACK, 0)
    }
}

impl Size {
    /// The guest is to have plugged so many MiB, and is told: not less, or, where it `shrinks`, not more.
    pub fn request(&self, mib: u32, shrinks: bool) {
        let mut state = self.state();
        state.blocks.requested = u64::from(mib) << 20;
        state.shrinks = shrinks;
        state.show(true);
    }

    /// Whether the guest has plugged what it was told to. It may keep what it cannot move for longer.
    pub fn is_reached(&self) -> bool {
        let state = self.state();
        let (plugged, requested) = (state.blocks.plugged_bytes(), state.blocks.requested);
        match state.shrinks {
            true => plugged <= requested,
            false => plugged >= requested,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    /// A running device shows its driver how things stand, and `tells` it to look.
    fn show(&self, tells: bool) {
        if let Some(driver) = &self.driver {
            driver.set_config(self.blocks.config(), tells);
        }
    }
}

impl Device for Mem {
    fn id(&self) -> u32 {
        VIRTIO_ID_MEM
    }

    fn features(&self) -> u64 {
        VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        self.size.state().blocks.config()
    }

    fn run(self: Box<Self>, activation: Activation, stop: &Stop) -> (Box<dyn Device>, Vec<Queue>) {
        self.size.state().driver = Some(activation.interrupt.clone());
        // More may have been requested since the driver looked.
        self.size.state().show(true);
        let queues = requests::serve("memory", Told::Each, activation, stop, |memory, chain| {
            Some(self.answer(memory, chain))
        });
        self.size.state().driver = None;
        (self, queues)
    }
}

#[cfg(test)]
mod tests;

//! The seam between a virtio device and the rest of the machine. A device sees guest memory, its queues and two
//! descriptors to wait on and to raise; never KVM, the bus, the layout or a thread.
//!
//! Virtio 1.2, section 2 (basic facilities).

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::event;
use crate::memory::GuestMemory;

/// A virtio device at rest. To run it, its whole value moves into [`Device::run`], on a thread of its own, and comes
/// back when that returns; so pause, reset and snapshot are the same motion.
///
/// A device may come in several parts, each of which runs on a thread of its own and serves its share of the queues, dealt out
/// in order. What the driver sees besides is what the first one says.
pub trait Device: Send {
    /// Device ID, section 5.
    fn id(&self) -> u32;
    /// Device-specific feature bits offered, and VIRTIO_F_* of the device's own; the transport adds its own.
    fn features(&self) -> u64;
    /// Maximum size of each queue, in order.
    fn queue_sizes(&self) -> &'static [u16];
    /// The device-specific configuration space as the driver reads it.
    fn config(&self) -> Vec<u8>;
    /// Serves the queues until `stop` is signalled. The queues come back with their positions, all requests begun
    /// answered.
    fn run(self: Box<Self>, activation: Activation, stop: &Stop) -> (Box<dyn Device>, Vec<Queue>);
}

/// What a device gets when the driver sets DRIVER_OK.
pub struct Activation {
    /// Guest memory.
    pub memory: GuestMemory,
    /// The features the driver accepted.
    pub features: u64,
    /// One entry for each of [`Device::queue_sizes`]; a queue the driver did not enable is not ready.
    pub queues: Vec<ActiveQueue>,
    /// Raises this device's interrupt line.
    pub interrupt: Arc<dyn Interrupt>,
}

impl Activation {
    /// What a device gives back: its queues with their positions.
    pub fn into_queues(self) -> Vec<Queue> {
        self.queues.into_iter().map(|active| active.queue).collect()
    }
}

/// A queue and the descriptor that becomes readable when the driver kicks it.
pub struct ActiveQueue {
    /// Ring addresses, size and positions.
    pub queue: Queue,
    /// Signalled by KVM itself (ioeventfd).
    pub kick: EventFd,
}

/// Device to driver notification. The transport's is an irqfd with a status register; tests count.
pub trait Interrupt: Send + Sync {
    /// A queue has used buffers.
    fn used_buffer(&self);
    /// What the driver reads of the configuration space from now on, which it may be told.
    fn set_config(&self, config: Vec<u8>, tells: bool);
    /// The device has met something only a reset can mend (DEVICE_NEEDS_RESET); `why` is for the log.
    fn needs_reset(&self, why: &str);
}

/// Becomes readable, and stays so, when a running device must give itself back.
pub struct Stop(EventFd);

impl Stop {
    /// Watches `event`.
    pub fn new(event: EventFd) -> Self {
        Self(event)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        event::descriptor(&self.0)
    }
}

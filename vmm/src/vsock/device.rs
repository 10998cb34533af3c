//! The device at rest, and the call that runs it. The transport's driver calls [`Device::run`] on the device's own
//! thread; everything that happens there is in `session`.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;

use anyhow::Context;
use virtio_queue::Queue;

use super::packet::Header;
use super::session::Session;
use super::spec::{VIRTIO_ID_VSOCK, VIRTIO_VSOCK_F_STREAM};
use super::table::Table;
use crate::device::{Activation, Device, Stop};
use crate::faults::Faults;

/// Says what a host port leads to: the host's end of a new connection, or `None` to refuse it.
///
/// It is called on the device's thread, under that thread's system call filter, and must not block.
pub type Connector = Box<dyn FnMut(u32) -> Option<UnixStream> + Send>;

/// The virtio-vsock device. Its connections live as long as it, through pause and resume.
///
/// The process must ignore SIGPIPE, as every Rust program does by default.
pub struct Vsock {
    pub(super) guest_cid: u64,
    pub(super) connector: Connector,
    pub(super) table: Table,
    /// Resets due to the guest for connections it has and the table has not.
    pub(super) resets: VecDeque<Header>,
    pub(super) faults: Faults,
}

impl Vsock {
    /// A device without connections, for a guest of the context ID `guest_cid`.
    pub fn new(guest_cid: u64, connector: Connector) -> Self {
        Self {
            guest_cid,
            connector,
            table: Table::default(),
            resets: VecDeque::new(),
            faults: Faults::default(),
        }
    }
}

impl Device for Vsock {
    fn id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        VIRTIO_VSOCK_F_STREAM
    }

    fn queue_sizes(&self) -> &'static [u16] {
        // A receive buffer of Linux is a page: 512 KiB of the guest's memory. It keeps 8 event buffers.
        &[128, 128, 8]
    }

    fn config(&self) -> Vec<u8> {
        self.guest_cid.to_le_bytes().to_vec()
    }

    fn run(
        mut self: Box<Self>,
        mut activation: Activation,
        stop: &Stop,
    ) -> (Box<dyn Device>, Vec<Queue>) {
        let session = Session::new(&mut self, &mut activation, stop);
        let session = session.context("set up the vsock device");
        let served = session.and_then(|session| session.serve().context("serve vsock queues"));
        if let Err(why) = served {
            activation.interrupt.needs_reset(&format!("{why:#}"));
        }
        (self, activation.into_queues())
    }
}

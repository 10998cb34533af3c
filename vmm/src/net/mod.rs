//! The network card: a cable that leads to a link of the host. Frames pass as they are, with checksums and segments as
//! unfinished as both sides have agreed on.
//!
//! Virtio 1.2, section 5.1. A frame passes through a buffer, so that what the link is given is what has been looked at. What
//! a frame says of itself is judged by the link, which is the host's kernel.

mod rate;
mod session;
mod spec;
mod stream;
mod tap;
mod used;

use std::io;
use std::os::fd::AsFd;

use virtio_queue::Queue;

pub use self::rate::{Limit, Meter};
use self::session::Session;
use self::spec::*;
pub use self::stream::Stream;
pub use self::tap::Tap;
use crate::device::{Activation, Device, Stop};
use crate::faults::Faults;
use crate::mmio::spec::VIRTIO_F_INDIRECT_DESC;

/// What the cable leads to. Its descriptor is readable when it has a frame. Each frame has the header of section 5.1.6 in front.
pub trait Link: AsFd + Send {
    /// Which of the features that leave frames unfinished it takes.
    fn offloads(&self) -> u64;
    /// From now on frames for the guest may be as unfinished as these features of the driver say.
    ///
    /// # Errors
    /// When the host cannot finish the others itself.
    fn set_offloads(&self, features: u64) -> io::Result<()>;
    /// Takes one frame for the guest; its length, bytes.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, `InvalidInput` when one was lost; with any other the cable leads nowhere any more.
    fn receive(&self, frame: &mut [u8]) -> io::Result<usize>;
    /// Gives one frame of the guest's.
    ///
    /// # Errors
    /// `WouldBlock` when it has not all gone, and is to be given again as it is, once the descriptor is writable. Else it is
    /// refused, and lost.
    fn send(&self, frame: &[u8]) -> io::Result<()>;
}

/// A network card.
pub struct Net {
    link: Box<dyn Link>,
    mac: [u8; 6],
    mtu: u16,
    /// What the guest sends, and what it receives.
    meters: [Meter; 2],
    faults: Faults,
}

impl Net {
    /// A card of the address `mac` whose packets have at most `mtu` bytes. What the guest sends passes by the first of `meters`, what
    /// it receives by the second.
    pub fn new(link: Box<dyn Link>, mac: [u8; 6], mtu: u16, meters: [Meter; 2]) -> Self {
        Self {
            link,
            mac,
            mtu,
            meters,
            faults: Faults::default(),
        }
    }

    /// `struct virtio_net_config`, section 5.1.4.
    fn config(&self, status: u16) -> Vec<u8> {
        let mut config = self.mac.to_vec();
        config.extend(status.to_le_bytes());
        config.extend(1u16.to_le_bytes()); // max_virtqueue_pairs
        config.extend(self.mtu.to_le_bytes());
        config
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        let says = VIRTIO_NET_F_MAC | VIRTIO_NET_F_MTU | VIRTIO_NET_F_STATUS;
        says | self.link.offloads() | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_F_INDIRECT_DESC
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; 2]
    }

    fn config(&self) -> Vec<u8> {
        self.config(VIRTIO_NET_S_LINK_UP)
    }

    fn run(
        self: Box<Self>,
        mut activation: Activation,
        stop: &Stop,
    ) -> (Box<dyn Device>, Vec<Queue>) {
        let session = Session::new(&self, &mut activation, stop);
        let session = session.map_err(|error| format!("set up the network card: {error}"));
        let served = session.and_then(|session| {
            let served = session.serve();
            served.map_err(|fault| format!("queues of the network card are broken: {fault}"))
        });
        if let Err(why) = served {
            activation.interrupt.needs_reset(&why);
        }
        (self, activation.into_queues())
    }
}

#[cfg(test)]
mod tests;

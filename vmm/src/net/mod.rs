//! The network card: a cable that leads to a link of the host. Frames pass as they are, with checksums and segments as
//! unfinished as both sides have agreed on.
//!
//! Virtio 1.2, section 5.1. A card has a pair of queues, or several, each a part with a link of its own. A frame passes through a
//! buffer, so that what the link is given is what has been looked at. What a frame says of itself is judged by the link, which is
//! the host's kernel.

mod control;
mod rate;
mod session;
mod spec;
mod tap;
mod used;

use std::io;
use std::os::fd::AsFd;

use anyhow::Context;
use virtio_queue::Queue;

use self::control::Control;
pub use self::rate::{Limit, Meter};
use self::session::Session;
pub use self::spec::HEADER_BYTES;
use self::spec::*;
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

/// The parts of a card of the address `mac` whose packets have at most `mtu` bytes, with a pair of queues for each of `taps`, which are
/// one interface's. What the guest sends passes by the first of `meters`, what it receives by the second.
///
/// # Errors
/// When no descriptor is left.
pub fn card(
    taps: Vec<Tap>,
    mac: [u8; 6],
    mtu: u16,
    meters: &[Meter; 2],
) -> io::Result<Vec<Box<dyn Device>>> {
    let pairs = u16::try_from(taps.len()).unwrap_or(u16::MAX);
    let control = (pairs > 1).then(|| control(&taps)).transpose()?;
    let nets = taps.into_iter().map(|tap| -> Box<dyn Device> {
        let net = Net::new(Box::new(tap), mac, mtu, meters.clone());
        Box::new(Net { pairs, ..net })
    });
    let control = control.map(|control| -> Box<dyn Device> { Box::new(control) });
    Ok(nets.chain(control).collect())
}

/// The control queue of a card whose pairs lead to `taps`.
fn control(taps: &[Tap]) -> io::Result<Control> {
    let own = taps.iter().map(Tap::try_clone);
    let own = own.collect::<io::Result<Vec<_>>>()?;
    let attach = move |pair: usize, gets| own[pair].set_attached(gets);
    Ok(Control::new(taps.len(), Box::new(attach)))
}

/// A card with one pair of queues, or one such pair.
pub struct Net {
    link: Box<dyn Link>,
    mac: [u8; 6],
    mtu: u16,
    /// How many the whole card has.
    pairs: u16,
    /// What the guest sends, and what it receives.
    meters: [Meter; 2],
    faults: Faults,
}

impl Net {
    /// As [`card`] with one link.
    pub fn new(link: Box<dyn Link>, mac: [u8; 6], mtu: u16, meters: [Meter; 2]) -> Self {
        Self {
            link,
            mac,
            mtu,
            pairs: 1,
            meters,
            faults: Faults::default(),
        }
    }

    /// `struct virtio_net_config`, section 5.1.4.
    fn config(&self, status: u16) -> Vec<u8> {
        let mut config = self.mac.to_vec();
        config.extend(status.to_le_bytes());
        config.extend(self.pairs.to_le_bytes());
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
        let several = match self.pairs {
            1 => 0,
            _ => VIRTIO_NET_F_MQ | VIRTIO_NET_F_CTRL_VQ,
        };
        says | several | self.link.offloads() | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_F_INDIRECT_DESC
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
        let session = Session::new(&self, &mut activation, stop).context("set up the network card");
        let served = session.and_then(|session| {
            let served = session.serve();
            served.context("serve the network card's queues")
        });
        if let Err(why) = served {
            activation.interrupt.needs_reset(&format!("{why:#}"));
        }
        (self, activation.into_queues())
    }
}

#[cfg(test)]
mod tests;

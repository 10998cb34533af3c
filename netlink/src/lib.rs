//! What the machine and its host ask of the kernel's network, each in the network namespace of the calling thread:
//! interfaces and their queues, addresses, neighbours, routes, the joint between two interfaces; and on the host namespaces that have names.
//!
//! rtnetlink(7). Every request is answered before the next one is made.
#![warn(missing_docs)]

mod channels;
mod joint;
mod namespace;
mod requests;
mod socket;
mod tap;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::namespace::Namespace;
pub use self::socket::Netlink;
pub use self::tap::tap;

/// An interface as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its address on the link.
    pub mac: [u8; 6],
    /// Its largest packet, bytes.
    pub mtu: u32,
}

/// An address and how many of its first bits name its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How many bits.
    pub prefix: u8,
}

/// Somebody on a link whose address there nobody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Who.
    pub ip: IpAddr,
    /// Its address on the link.
    pub mac: [u8; 6],
}

/// A way by one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads; bits of 0 = everywhere.
    pub to: Address,
    /// Who passes packets on, by either version of IP; `None` = whoever has the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link though no address of the interface's says so.
    pub gateway_on_link: bool,
    /// The address that packets are sent from.
    pub source: Option<IpAddr>,
    /// Of several the lowest is taken.
    pub priority: Option<u32>,
    /// The largest packet by it, bytes; `None` = the interface's.
    pub mtu: Option<u32>,
    /// The most that TCP lets others send before it has taken something, bytes; `None` = as it finds best.
    pub window: Option<u32>,
}

impl Route {
    /// One to whoever has an address of `to`, on the link itself.
    pub fn on_link(to: Address) -> Self {
        Self {
            to,
            gateway: None,
            gateway_on_link: false,
            source: None,
            priority: None,
            mtu: None,
            window: None,
        }
    }
}

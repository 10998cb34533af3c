//! The virtio-vsock device: stream connections that the guest dials to the host end in Unix stream sockets.
//!
//! Nothing in the guest listens, so the host never dials; there is one host context ID and one guest context ID, and
//! neither seqpacket nor datagram sockets. The machine puts [`Vsock`] behind a transport and gives it a thread; the
//! process that owns the machine says through a [`Connector`] which host ports exist.
//!
//! Virtio 1.2, section 5.10. `connection`, `table` and `packet` are plain values; `session` and its two halves,
//! `transmit` and `receive`, move bytes.

mod connection;
mod device;
mod packet;
mod receive;
mod session;
pub mod spec;
mod table;
#[cfg(test)]
mod tests;
mod transmit;

pub use device::{Connector, Vsock};

//! The host's networks without privileges: passt(1) speaks Ethernet at one end of a socket, and with all others TCP, UDP and
//! echoes of ICMP by its own sockets. Whoever is at the other end has the host's address, as far as he can tell, and the host's
//! way out.
//!
//! passt goes into the background when it is ready, and ends when the other end of its socket is closed, by whomever: there
//! is nothing to take down.
#![warn(missing_docs)]

mod stream;
mod uplink;

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use netlink::{Address, Netlink, Route};
use rustix::net::sockopt::set_socket_send_buffer_size;

pub use self::stream::Stream;
use self::uplink::Uplink;

const PROGRAM: &str = "passt";

/// The largest packet of this end, bytes: the largest that passt takes.
pub const MTU: u16 = 65520;

/// What a connection of this end's may be sent before it has taken something, bytes. passt drops the frames that its socket has no room for, and
/// sends them again after two seconds: measured, a MiB into a machine took 78 million instructions so, or 16 when nothing was lost, and takes 13.
const WINDOW_BYTES: u32 = 128 << 10;

/// Room in passt's socket, bytes, for several connections; the host's own limit (net.core.wmem_max) is less.
const ROOM_BYTES: usize = 4 << 20;

/// Where it takes questions to the name servers of the host that only that reaches.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The end of a cable, at the other of which passt is.
pub struct Cable {
    /// Its frames.
    pub stream: Stream,
    /// The addresses that this end is to have: the host's own.
    pub addresses: Vec<Address>,
    /// The ways by it.
    pub routes: Vec<Route>,
}

/// Starts passt. What `forwards` say are its flags for ports of the host that lead to this end. Where this is `open`, it reaches what listens on the
/// host's loopback, at the gateway's address. None if this host has no way out.
///
/// # Errors
/// When there is no passt, or it fails.
pub fn start(forwards: &[String], open: bool) -> Result<Option<Cable>> {
    let uplinks = Uplink::find_all(&Netlink::open()?)?;
    if uplinks.is_empty() {
        return Ok(None);
    }
    let (socket, theirs) = UnixStream::pair().context("make a pair of sockets")?;
    set_socket_send_buffer_size(&theirs, ROOM_BYTES)?;
    // One that passt inherits.
    let theirs = rustix::io::dup(theirs).context("hand a socket down")?;
    let mut passt = Command::new(PROGRAM);
    passt.args(["--quiet", "--fd", &theirs.as_raw_fd().to_string()]);
    passt.args(["--dns-forward", &NAME_SERVER.to_string()]);
    // This end is told otherwise.
    passt.args(["--no-dhcp", "--no-dhcpv6", "--no-ra"]);
    passt.args(uplinks.iter().flat_map(Uplink::flags));
    passt.args((!open).then_some("--no-map-gw"));
    let ended = passt.args(forwards).stdin(Stdio::null()).output();
    let ended =
        ended.with_context(|| format!("run {PROGRAM} (Debian's is in the package passt)"))?;
    let told = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{PROGRAM} failed: {}", told.trim());
    let addresses = uplinks.iter().map(|uplink| uplink.address).collect();
    let routes = uplinks.into_iter().flat_map(|uplink| uplink.routes);
    let routes = routes.map(|route| Route {
        mtu: None,
        window: Some(WINDOW_BYTES),
        ..route
    });
    Ok(Some(Cable {
        stream: Stream::new(socket)?,
        addresses,
        routes: routes.collect(),
    }))
}

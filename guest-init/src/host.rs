//! Connections to the host over vsock: the guest dials, it listens nowhere.
//!
//! Waits for the VMM alone, which answers at once or refuses.

use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

/// The host's context id.
const HOST_CID: u32 = 2;

/// A blocking stream to `port` of the host.
///
/// # Errors
/// Nobody listens there, or the machine has no vsock device.
pub fn dial(port: u32) -> Result<File> {
    let stream = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("make a vsock socket")?;
    connect(stream.as_raw_fd(), &VsockAddr::new(HOST_CID, port))
        .with_context(|| format!("connect to port {port} of the host"))?;
    Ok(stream.into())
}

/// Makes reads and writes of `file` return instead of waiting.
pub fn never_wait(file: &File) -> rustix::io::Result<()> {
    rustix::io::ioctl_fionbio(file, true)
}

//! Interfaces whose other end is a descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};

const DEVICE: &str = "/dev/net/tun";

/// Makes the tap `name` in the network namespace of the calling thread, with so many queues, at least one. It goes when
/// all of them have been closed. Frames have a `struct virtio_net_hdr` in front.
///
/// # Errors
/// When it cannot be made; to make one takes CAP_NET_ADMIN there.
pub fn tap(name: &str, queues: usize) -> Result<Vec<File>> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let queue = || queue(name, i16::try_from(flags)?);
    let queues: Result<_> = (0..queues).map(|_| queue()).collect();
    queues.with_context(|| format!("make interface {name}"))
}

fn queue(name: &str, ifru_flags: i16) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)
        .with_context(|| format!("open {DEVICE}"))?;
    let mut request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags },
    };
    #[expect(unsafe_code, reason = "a request of tun's")]
    // SAFETY: it reads and writes the structure that it is given.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    ensure!(made == 0, "TUNSETIFF: {}", io::Error::last_os_error());
    Ok(file)
}

/// As `struct ifreq` has it.
pub(crate) fn interface_name(name: &str) -> Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    ensure!(name.len() < bytes.len(), "its name is too long");
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(bytes)
}

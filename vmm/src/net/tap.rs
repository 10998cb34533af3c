//! A tap: an interface of the host whose other end is a descriptor.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use super::Link;
use super::spec::*;

const DEVICE: &str = "/dev/net/tun";

/// A tap that goes when this does.
pub struct Tap(File);

impl Tap {
    /// Makes the interface `name` in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When it cannot be made; to make one takes CAP_NET_ADMIN there.
    pub fn create(name: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .with_context(|| format!("open {DEVICE}"))?;
        #[expect(
            unsafe_code,
            reason = "a structure of the kernel's, all of it plain numbers"
        )]
        // SAFETY: zero is a value of each of its fields.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        ensure!(
            name.len() < request.ifr_name.len(),
            "interface name {name} is too long"
        );
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request.ifr_ifru.ifru_flags = i16::try_from(flags)?;
        let header_bytes = i32::try_from(HEADER_BYTES)?;
        #[expect(unsafe_code, reason = "requests of tun's")]
        // SAFETY: both read, and the first writes, the whole structures that they are given.
        let made = unsafe {
            ioctl_with_mut_ref(&file, libc::TUNSETIFF, &mut request) == 0
                && ioctl_with_ref(&file, libc::TUNSETVNETHDRSZ, &header_bytes) == 0
        };
        ensure!(
            made,
            "make interface {name}: {}",
            io::Error::last_os_error()
        );
        Ok(Self(file))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Tap {
    fn offloads(&self) -> u64 {
        HOST_OFFLOADS | GUEST_OFFLOADS
    }

    fn set_offloads(&self, features: u64) -> io::Result<()> {
        let offloads = [
            (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
            (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
            (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
        ];
        let accepted = offloads.iter().filter(|(bit, _)| features & bit != 0);
        let flags = accepted.fold(0, |flags, (_, flag)| flags | flag);
        #[expect(unsafe_code, reason = "a request of tun's")]
        // SAFETY: it takes a number.
        let done = unsafe { ioctl_with_val(&self.0, libc::TUNSETOFFLOAD, flags.into()) };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(frame)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        // A frame is taken whole or not at all.
        (&self.0).write(frame).map(drop)
    }
}

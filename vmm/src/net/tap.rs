//! A tap: an interface of the host whose other end is a descriptor, or several.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use vmm_sys_util::ioctl::{ioctl_with_ref, ioctl_with_val};

use super::Link;
use super::spec::*;

/// A queue of a tap.
pub struct Tap(File);

impl Tap {
    /// The card's end of `queue`, which is one of a tap's with IFF_VNET_HDR and without IFF_PACKET_INFO.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(queue: File) -> io::Result<Self> {
        let header_bytes = i32::try_from(HEADER_BYTES).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "a request of tun's")]
        // SAFETY: it reads a number.
        let done = unsafe { ioctl_with_ref(&queue, libc::TUNSETVNETHDRSZ, &header_bytes) };
        succeeded(done)?;
        Ok(Self(queue))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether the interface gives frames to this queue, too.
    pub(super) fn set_attached(&self, attached: bool) -> io::Result<()> {
        let flags = match attached {
            true => libc::IFF_ATTACH_QUEUE,
            false => libc::IFF_DETACH_QUEUE,
        };
        let ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
        let request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags },
        };
        #[expect(unsafe_code, reason = "a request of tun's")]
        // SAFETY: it reads the structure that it is given.
        succeeded(unsafe { ioctl_with_ref(&self.0, libc::TUNSETQUEUE, &request) })
    }
}

fn succeeded(done: i32) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
        succeeded(unsafe { ioctl_with_val(&self.0, libc::TUNSETOFFLOAD, flags.into()) })
    }

    fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(frame)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        // A frame is taken whole or not at all.
        (&self.0).write(frame).map(drop)
    }
}

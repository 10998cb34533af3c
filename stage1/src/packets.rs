//! Messages between a pod's process and those who ask something of it: JSON in a packet of a Unix socket, descriptors
//! beside it. Both sides are `clients` and `enter`.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest packet, bytes: what a socket takes by default.
const MAX_BYTES: usize = 128 << 10;

/// The most descriptors in a packet.
pub const MAX_DESCRIPTORS: usize = 3;

/// What a look for a packet finds.
pub enum Received<M> {
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    End,
    /// A message and what came with it.
    Message(M, Vec<OwnedFd>),
}

/// Sends `message`, or fails where that would wait.
///
/// # Errors
/// When it is too long, or the other side gone or not reading.
pub fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> Result<()> {
    let json = serde_json::to_vec(message)?;
    ensure!(
        json.len() <= MAX_BYTES,
        "{} bytes are more than fit one message ({MAX_BYTES})",
        json.len()
    );
    let descriptors: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights = if descriptors.is_empty() {
        &[][..]
    } else {
        &rights
    };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let text = [IoSlice::new(&json)];
    sendmsg::<()>(socket.as_raw_fd(), &text, rights, flags, None).context("send a message")?;
    Ok(())
}

/// Looks for a message.
///
/// # Errors
/// When the socket is broken, or carries none of ours.
pub fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Received<M>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let (length, cut, descriptors) =
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(received) => {
                let messages = received.cmsgs().into_iter().flatten();
                let descriptors: Vec<_> = messages.flat_map(owned).collect();
                let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
                (received.bytes, received.flags.intersects(cut), descriptors)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Nothing),
            Err(Errno::ECONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error).context("receive a message"),
        };
    if length == 0 {
        return Ok(Received::End);
    }
    ensure!(!cut, "a message or its descriptors are more than fit one");
    let message = serde_json::from_slice(&bytes[..length]).context("read a message")?;
    Ok(Received::Message(message, descriptors))
}

#[expect(unsafe_code, reason = "a received descriptor is a bare number")]
fn owned(message: ControlMessageOwned) -> Vec<OwnedFd> {
    let ControlMessageOwned::ScmRights(descriptors) = message else {
        return Vec::new();
    };
    let own = descriptors.into_iter();
    // SAFETY: the kernel has just made these descriptors for us.
    own.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
        .collect()
}

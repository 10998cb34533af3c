//! Messages between processes of one machine: JSON in a packet of a Unix socket, descriptors beside it. On the host between a
//! pod's process and those who ask something of it, in the guest between PID 1 and what it starts.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest packet, bytes: what a socket takes by default.
const MAX_BYTES: usize = 128 << 10;

/// The most descriptors in a packet: Linux's SCM_MAX_FD.
const MAX_DESCRIPTORS: usize = 253;

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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    ensure!(
        descriptors.is_empty() || beside.push(SendAncillaryMessage::ScmRights(descriptors)),
        "more than {MAX_DESCRIPTORS} descriptors in a message"
    );
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&json)], &mut beside, flags).context("send a message")?;
    Ok(())
}

/// Looks for a message.
///
/// # Errors
/// When the socket is broken, or carries none of ours.
pub fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Received<M>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = match recvmsg(socket, parts, &mut beside, flags) {
        Ok(received) => received,
        // A peer that has gone with a message of ours unread: what it said before comes next, and then the end.
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => return Ok(Received::Nothing),
        Err(error) => return Err(error).context("receive a message"),
    };
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let length = received.bytes;
    let cut = received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if length == 0 {
        return Ok(Received::End);
    }
    ensure!(!cut, "a message or its descriptors are more than fit one");
    let message = serde_json::from_slice(&bytes[..length]).context("read a message")?;
    Ok(Received::Message(message, descriptors))
}

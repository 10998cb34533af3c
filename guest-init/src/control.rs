//! The control stream of the supervision loop: framing without waiting, in both directions.
//!
//! Before the loop `protocol::send` and `protocol::receive` are used on the same stream, blocking.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use guest_init::protocol::{ToGuest, ToHost, send, take};
use nix::poll::PollFlags;

/// Answers that may wait for the host, bytes, before its next messages are left unread.
const OUTGOING_LIMIT_BYTES: usize = 64 << 10;

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// The control stream.
pub struct Control {
    stream: File,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Control {
    /// Takes over a nonblocking stream.
    pub fn new(stream: File) -> Self {
        Self {
            stream,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// The stream and what to wait for.
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut events = PollFlags::empty();
        events.set(
            PollFlags::POLLIN,
            self.outgoing.len() < OUTGOING_LIMIT_BYTES,
        );
        events.set(PollFlags::POLLOUT, !self.outgoing.is_empty());
        (self.stream.as_fd(), events)
    }

    /// Queues a message for [`Control::flush`].
    ///
    /// # Errors
    /// A message over the protocol's limit.
    pub fn queue(&mut self, message: &ToHost) -> Result<()> {
        send(&mut self.outgoing, message).context("frame a control message")
    }

    /// Writes what the stream takes.
    ///
    /// # Errors
    /// The host is gone.
    pub fn flush(&mut self) -> Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("write to the control stream"),
            }
        }
        Ok(())
    }

    /// Reads what is there: the whole messages in it.
    ///
    /// # Errors
    /// The stream has ended or failed, or holds no valid message.
    pub fn receive(&mut self) -> Result<Vec<ToGuest>> {
        let mut chunk = [0; CHUNK_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the host closed the control stream"),
            Ok(count) => self.incoming.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("read the control stream"),
        }
        take(&mut self.incoming).context("read a control message")
    }
}

//! The host's end of the control stream, without blocking: a guest that sends half a message, or reads none, holds
//! nothing up.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use guest_init::protocol::{self, MAX_FRAME_BYTES, ToGuest, ToHost};
use nix::poll::PollFlags;

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// The most that may wait for a guest that does not read.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Frames half received, and frames half sent.
pub struct Control {
    stream: UnixStream,
    received: Vec<u8>,
    waiting: Vec<u8>,
    /// Whether there may be more to read.
    open: bool,
}

impl Control {
    /// Takes over `stream`.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> Result<Self> {
        stream
            .set_nonblocking(true)
            .context("make the control stream non-blocking")?;
        Ok(Self {
            stream,
            received: Vec::new(),
            waiting: Vec::new(),
            open: true,
        })
    }

    /// What to poll, and for what; `None` = nothing more will come.
    pub fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let events = match self.waiting.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        self.open.then(|| (self.stream.as_fd(), events))
    }

    /// Sends `message`, or as much of it as the guest takes now.
    ///
    /// # Errors
    /// When the stream is broken, or the guest has left too much unread.
    pub fn send(&mut self, message: &ToGuest) -> Result<()> {
        protocol::send(&mut self.waiting, message).context("write a control message")?;
        ensure!(
            self.waiting.len() <= MAX_WAITING_BYTES,
            "the guest does not read its control messages"
        );
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("write to the control stream"),
            }
        }
        Ok(())
    }

    /// Sends what waits, reads what is there, and returns the messages that are complete.
    ///
    /// # Errors
    /// When the stream is broken or carries no control messages; then nothing more will come.
    pub fn receive(&mut self) -> Result<Vec<ToHost>> {
        self.open = false;
        self.flush()?;
        let closed = self.fill().context("read from the control stream")?;
        let messages =
            protocol::take(&mut self.received).context("read a control message of the guest")?;
        self.open = !closed;
        Ok(messages)
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; READ_BYTES];
        while self.received.len() < MAX_FRAME_BYTES {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::tests::entry;

    fn pair() -> (Control, UnixStream) {
        let (ours, guests) = UnixStream::pair().expect("a socket pair");
        (Control::new(ours).expect("a non-blocking socket"), guests)
    }

    fn frame(message: &ToHost) -> Vec<u8> {
        let mut frame = Vec::new();
        protocol::send(&mut frame, message).expect("a short message");
        frame
    }

    #[test]
    fn message_in_pieces_arrives_when_complete() {
        let (mut control, mut guest) = pair();
        let hello = ToHost::Hello { version: 1 };
        let bytes = [frame(&hello), frame(&ToHost::Started { task: 0 })].concat();
        for (index, byte) in bytes.iter().enumerate() {
            guest.write_all(&[*byte]).expect("room for a byte");
            let messages = control.receive().expect("a good stream");
            assert!(control.waits_for().is_some());
            assert_eq!(
                messages.len(),
                usize::from(index + 1 == frame(&hello).len() || index + 1 == bytes.len())
            );
        }
    }

    #[test]
    fn message_with_huge_length_breaks_the_stream() {
        let (mut control, mut guest) = pair();
        guest.write_all(&u32::MAX.to_le_bytes()).expect("room");
        assert!(control.receive().is_err());
    }

    #[test]
    fn messages_to_a_guest_that_never_reads_end_with_an_error() {
        let (mut control, _guest) = pair();
        let message = ToGuest::Enter {
            task: 1,
            entry: Box::new(entry(&"x".repeat(100_000))),
        };
        assert!((0..100).any(|_| control.send(&message).is_err()));
    }
}

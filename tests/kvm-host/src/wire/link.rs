//! One end of a port: a non-blocking descriptor with the frames that come out of it and the bytes that wait to go in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::frame::{Decoder, Frame};
use super::outbox::Outbox;

/// A port's descriptor with both directions' state.
pub struct Link {
    fd: OwnedFd,
    decoder: Decoder,
    /// Bytes for the other end.
    pub outbox: Outbox,
}

/// What one read found.
pub enum Arrival {
    /// Bytes were added.
    Bytes,
    /// Nothing now.
    Nothing,
    /// The other end is gone.
    Gone,
}

/// Reads once from a non-blocking descriptor and appends to `bytes`.
pub fn read_once(fd: BorrowedFd, bytes: &mut Vec<u8>) -> Result<Arrival> {
    let mut buffer = [0; 64 << 10];
    match nix::unistd::read(fd, &mut buffer) {
        Ok(0) | Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ENODEV) => Ok(Arrival::Gone),
        Ok(count) => {
            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            Ok(Arrival::Bytes)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Arrival::Nothing),
        Err(errno) => Err(errno).context("read from the port"),
    }
}

impl Link {
    /// A link over a descriptor that is non-blocking; `early` are bytes already read from it.
    pub fn new(fd: OwnedFd, early: &[u8]) -> Self {
        let mut decoder = Decoder::default();
        decoder.push(early);
        Self {
            fd,
            decoder,
            outbox: Outbox::default(),
        }
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        self.outbox.push(&frame.encode()?);
        Ok(())
    }

    /// Reads once.
    pub fn receive(&mut self) -> Result<Arrival> {
        let mut bytes = Vec::new();
        let arrival = read_once(self.fd.as_fd(), &mut bytes)?;
        self.decoder.push(&bytes);
        Ok(arrival)
    }

    /// The next frame that has arrived whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        self.decoder.next()
    }

    /// Writes what the other end takes now; false when it is gone.
    pub fn flush(&mut self) -> Result<bool> {
        loop {
            match self.outbox.write_once(&self.fd, 32 << 10) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENODEV) => return Ok(false),
                Err(errno) => return Err(errno).context("write to the port"),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

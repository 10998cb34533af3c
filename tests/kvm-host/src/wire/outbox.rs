//! Bytes that wait until a descriptor takes them.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use nix::errno::Errno;

/// A queue of bytes in front of a descriptor.
#[derive(Default)]
pub struct Outbox {
    bytes: VecDeque<u8>,
}

impl Outbox {
    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes once, at most `most` bytes; the number written, 0 when the descriptor takes none now.
    pub fn write_once(&mut self, fd: impl AsFd, most: usize) -> Result<usize, Errno> {
        let (front, _) = self.bytes.as_slices();
        let front = front.get(..most.min(front.len())).unwrap_or_default();
        if front.is_empty() {
            return Ok(0);
        }
        match nix::unistd::write(fd, front) {
            Ok(written) => {
                self.bytes.drain(..written);
                Ok(written)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbox_longer_than_a_pipe_keeps_what_did_not_fit() {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let mut outbox = Outbox::default();
        outbox.push(&[7; 200_000]);
        let mut written = 0;
        loop {
            match outbox.write_once(&writer, 50_000).unwrap() {
                0 => break,
                count => written += count,
            }
        }
        assert!(written > 0 && outbox.bytes.len() == 200_000 - written);
        drop(reader);
        assert_eq!(outbox.write_once(&writer, 1), Err(Errno::EPIPE));
    }
}

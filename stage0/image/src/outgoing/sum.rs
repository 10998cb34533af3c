//! A writer that counts and hashes what passes through it.

use std::io::{self, Write};

use crate::digest::{Algorithm, Digest, Hash};

/// Passes on to `inner`.
pub struct Sum<W> {
    inner: W,
    hash: Hash,
    bytes: u64,
}

impl<W: Write> Sum<W> {
    /// Nothing yet.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Hash::new(Algorithm::Sha256),
            bytes: 0,
        }
    }

    /// What is below, the SHA-256 of all that was written, and how much that was.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hash.finish(), self.bytes)
    }
}

impl<W: Write> Write for Sum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

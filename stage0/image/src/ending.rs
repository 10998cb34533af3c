//! Whether a tar that passed through ended with its end mark, two blocks of zeros (POSIX ustar).
//!
//! A tar cut at the border of two entries is a valid tar but for this mark; where no digest vouches for the whole, it
//! alone tells that nothing is missing.

use std::io::{self, Read};

/// Bytes of the end mark.
const MARK_BYTES: u64 = 1024;

/// Counts the zeros at the end of what is read through it.
pub struct Ending<R> {
    inner: R,
    zeros: u64,
    total: u64,
}

impl<R> Ending<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            zeros: 0,
            total: 0,
        }
    }

    /// Whether what was read so far ends as a whole tar does.
    pub fn is_marked(&self) -> bool {
        self.zeros >= MARK_BYTES && self.total.is_multiple_of(512)
    }

    /// Bytes read so far.
    pub fn length(&self) -> u64 {
        self.total
    }
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let tail = buffer[..count]
            .iter()
            .rev()
            .take_while(|byte| **byte == 0)
            .count();
        self.zeros = if tail == count {
            self.zeros + tail as u64
        } else {
            tail as u64
        };
        self.total += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_seen_across_reads() {
        let bytes = [&[1; 512][..], &[0; 1024]].concat();
        for (length, marked) in [(1536, true), (1024, false), (1535, false), (0, false)] {
            let mut ending = Ending::new(&bytes[..length]);
            let mut buffer = [9; 100];
            while ending.read(&mut buffer).unwrap() > 0 {}
            assert_eq!(ending.is_marked(), marked, "{length}");
        }
    }
}

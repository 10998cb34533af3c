//! Answers that come no slower than is allowed.

use std::io::{self, Read};
use std::time::Instant;

use crate::patience::Patience;
use crate::retry::Fault;

/// Reads no slower than is allowed.
pub struct Paced<'a, R> {
    inner: R,
    patience: &'a Patience,
    begun: Instant,
    bytes: u64,
}

impl<'a, R> Paced<'a, R> {
    /// Reads from `inner`.
    pub fn new(inner: R, patience: &'a Patience) -> Self {
        Self {
            inner,
            patience,
            begun: Instant::now(),
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Paced<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if count > 0 && self.begun.elapsed() > self.patience.pace {
            if self.bytes < self.patience.least_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it sent {} bytes in {:?}", self.bytes, self.patience.pace),
                ));
            }
            self.begun = Instant::now();
            self.bytes = 0;
        }
        Ok(count)
    }
}

/// The fault of an answer that cannot be read on.
pub fn broken(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let inner = inner.map(|inner: &reqwest::Error| source_of(inner).to_string());
    Fault::passing(format!(
        "the answer breaks off: {}",
        inner.unwrap_or_else(|| error.to_string())
    ))
}

/// The cause at the end of the chain: what reqwest says around it names the link.
fn source_of(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn trickle_is_refused_once_its_time_is_over() {
        let patience = Patience {
            pace: Duration::ZERO,
            least_bytes: 10,
            ..Patience::default()
        };
        let mut paced = Paced::new(&b"x"[..], &patience);
        assert!(paced.read(&mut [0; 8]).is_err());
    }
}

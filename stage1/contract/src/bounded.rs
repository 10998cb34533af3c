//! Files that anybody may have written are read no further than allowed.

use std::io::Read;

use anyhow::{Result, ensure};

/// Room that is there from the start: most such files are read at once.
const FIRST_BYTES: usize = 4096;

/// All that `reader` yields.
///
/// # Errors
/// If that is more than `limit_bytes`, of which no more are read; if it cannot be read.
pub fn read(reader: impl Read, limit_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FIRST_BYTES);
    reader
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= limit_bytes,
        "it has more than {limit_bytes} bytes"
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_up_to_its_limit_and_no_further() -> Result<()> {
        assert_eq!(read(&b"abc"[..], 3)?, b"abc");
        assert_eq!(read(&b"abc"[..], u64::MAX)?, b"abc");
        assert!(read(&b"abcd"[..], 3).is_err());
        let endless = std::io::repeat(b'x');
        let error = read(endless, 1 << 16).expect_err("no end").to_string();
        assert!(error.contains("65536"), "{error}");
        Ok(())
    }
}

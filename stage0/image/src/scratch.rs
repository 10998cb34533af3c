//! An append-only store in an unlinked file: what the tree need not keep in memory (names, inode records, the
//! last bytes of files) lies here until the metadata is written. Used by the tree and the EROFS writer, on the
//! importing thread.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// Handles count in this unit, so that 32 bits reach 64 GiB.
const UNIT_BYTES: u64 = 16;
/// Appended bytes wait in memory up to this many.
const PENDING_BYTES: usize = 256 << 10;

/// Where something was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) u32);

impl Handle {
    /// Stands for "nothing stored".
    pub(crate) const NONE: Self = Self(0);

    fn offset(self) -> u64 {
        u64::from(self.0) * UNIT_BYTES
    }
}

/// The store. Offset 0 is never handed out.
pub(crate) struct Scratch {
    file: File,
    written: u64,
    pending: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            written: UNIT_BYTES,
            pending: Vec::with_capacity(PENDING_BYTES),
        }
    }

    /// Appends the parts one after another and says where they begin.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<Handle> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.pending.len() + length > PENDING_BYTES {
            self.flush()?;
        }
        let at = self.written + self.pending.len() as u64;
        let handle =
            Handle(u32::try_from(at / UNIT_BYTES).context("scratch file of 64 GiB is full")?);
        for part in parts {
            self.pending.extend_from_slice(part);
        }
        let padded = self.pending.len().next_multiple_of(16);
        self.pending.resize(padded, 0);
        Ok(handle)
    }

    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.pending, self.written)
            .context("write scratch file")?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Fills `into` from what was appended at `handle`, from byte `skip` on.
    pub(crate) fn read(&self, handle: Handle, skip: u64, into: &mut [u8]) -> Result<()> {
        let at = handle.offset() + skip;
        let in_file = self.written.saturating_sub(at).min(into.len() as u64);
        let (stored, waiting) = into.split_at_mut(usize::try_from(in_file)?);
        self.file
            .read_exact_at(stored, at)
            .context("read scratch file")?;
        let from = usize::try_from((at + in_file).saturating_sub(self.written))?;
        let source = self.pending.get(from..from + waiting.len());
        ensure!(
            source.is_some() || waiting.is_empty(),
            "scratch file read beyond its end"
        );
        waiting.copy_from_slice(source.unwrap_or_default());
        Ok(())
    }

    /// Fills as much of `into` as there is from `handle` on, and says how much that was.
    pub(crate) fn read_some<'a>(&self, handle: Handle, into: &'a mut [u8]) -> Result<&'a [u8]> {
        let end = self.written + self.pending.len() as u64;
        let length = usize::try_from(end.saturating_sub(handle.offset()).min(into.len() as u64))?;
        self.read(handle, 0, &mut into[..length])?;
        Ok(&into[..length])
    }

    /// The `length` bytes at `handle`.
    pub(crate) fn bytes(&self, handle: Handle, length: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        self.read(handle, 0, &mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_appended_parts_are_read_back_from_memory_and_file() {
        let mut scratch = Scratch::new(tempfile::tempfile().expect("temporary file"));
        let big = vec![7; PENDING_BYTES - 8];
        let first = scratch.append(&[b"one", b"two"]).expect("append");
        let second = scratch.append(&[&big]).expect("append");
        let third = scratch.append(&[b"three"]).expect("append");
        assert_eq!(scratch.bytes(first, 6).expect("read"), b"onetwo");
        assert_eq!(scratch.bytes(second, 100).expect("read"), vec![7; 100]);
        assert_eq!(scratch.bytes(third, 5).expect("read"), b"three");
        assert!(scratch.bytes(third, 17).is_err());
    }
}

//! An append-only store in an unlinked file: what the tree need not keep in memory (names, inode records, the
//! last bytes of files) lies here until the metadata is written. Used by the tree and the EROFS writer, on the
//! importing thread.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// Handles count in this unit, so that 32 bits reach 64 GiB.
const UNIT_BYTES: u64 = 16;
/// Appended bytes wait in memory up to this many.
const PENDING_BYTES: usize = 256 << 10;

/// What was written is read back in pages of this size.
const PAGE_BYTES: u64 = 16 << 10;
/// Pages kept in memory, each in the place that its number gives it.
const PAGES: usize = 64;

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
    pages: RefCell<Vec<Page>>,
}

#[derive(Default, Clone)]
struct Page {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new(file: File) -> Self {
        let pages = RefCell::new(vec![Page::default(); PAGES]);
        let pending = Vec::with_capacity(PENDING_BYTES);
        Self {
            file,
            written: UNIT_BYTES,
            pending,
            pages,
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
        self.read_written(at, stored)?;
        let from = usize::try_from((at + in_file).saturating_sub(self.written))?;
        let source = self.pending.get(from..from + waiting.len());
        ensure!(
            source.is_some() || waiting.is_empty(),
            "scratch file read beyond its end"
        );
        waiting.copy_from_slice(source.unwrap_or_default());
        Ok(())
    }

    /// Reads from the file; pages that are written whole never change, so they may be kept.
    fn read_written(&self, mut at: u64, mut into: &mut [u8]) -> Result<()> {
        while !into.is_empty() {
            let number = at / PAGE_BYTES;
            let skip = usize::try_from(at % PAGE_BYTES)?;
            if (number + 1) * PAGE_BYTES > self.written {
                return self
                    .file
                    .read_exact_at(into, at)
                    .context("read scratch file");
            }
            let mut pages = self.pages.borrow_mut();
            let page = &mut pages[usize::try_from(number)? % PAGES];
            if page.number != Some(number) {
                page.number = None;
                page.bytes.resize(usize::try_from(PAGE_BYTES)?, 0);
                let read = self
                    .file
                    .read_exact_at(&mut page.bytes, number * PAGE_BYTES);
                read.context("read scratch file")?;
                page.number = Some(number);
            }
            let length = into.len().min(page.bytes.len() - skip);
            let (now, later) = into.split_at_mut(length);
            now.copy_from_slice(&page.bytes[skip..skip + length]);
            into = later;
            at += length as u64;
        }
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
        scratch.append(&[&big]).expect("append");
        assert_eq!(scratch.bytes(second, 100).expect("read page"), vec![7; 100]);
        assert_eq!(
            scratch.bytes(second, 100).expect("read kept page"),
            vec![7; 100]
        );
        assert_eq!(scratch.bytes(third, 5).expect("read end of file"), b"three");
    }
}

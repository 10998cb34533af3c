//! The image as a row of blocks: allocates them in order, writes what is not zero, gives back what a later
//! layer hid. Blocks never written stay holes of their file: the image's own, or those that layers have for themselves.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::spec::BLOCK;
use crate::limits::{Limits, room_left};

pub(super) struct Blocks {
    /// Where blocks are written now; none between layers that have files of their own.
    file: Option<File>,
    /// The first block in that file.
    base: u32,
    /// Whether the file is this image's alone.
    is_own: bool,
    next: u32,
    /// Blocks of layers that were kept before.
    kept: u32,
    /// Bytes of inodes and what lies behind them, which wait in the scratch file for blocks of their own.
    waiting_bytes: u64,
    limit_bytes: u64,
    limit_new_bytes: u64,
}

impl Blocks {
    /// The blocks of the image's own file, of which block 0 is the superblock's.
    pub(super) fn new(file: File, limits: &Limits) -> Self {
        Self {
            file: Some(file),
            is_own: true,
            next: 1,
            ..Self::of_layers(limits)
        }
    }

    /// The blocks of layers, one layer's after the other's, counted from 0.
    pub(super) fn of_layers(limits: &Limits) -> Self {
        Self {
            file: None,
            base: 0,
            is_own: false,
            next: 0,
            kept: 0,
            waiting_bytes: 0,
            limit_bytes: limits.image_bytes,
            limit_new_bytes: limits.new_bytes,
        }
    }

    /// Takes the blocks of a layer that is kept, and returns the first.
    pub(super) fn take_kept(&mut self, count: u32) -> Result<u32> {
        self.kept += count;
        self.take(count.into())
    }

    /// Sees that there is room for all of an image whose index this is, with the blocks of its `layers`.
    pub(super) fn check_with(&mut self, layers: &Self) -> Result<()> {
        self.kept = layers.kept;
        self.check_room(layers.next.into())
    }

    /// What is taken from here on lies in `file`, from its start.
    pub(super) fn begin_layer(&mut self, file: File) {
        self.file = Some(file);
        self.base = self.next;
    }

    /// Sets the size of the layer's file, and says how many blocks that are.
    pub(super) fn end_layer(&mut self) -> Result<u32> {
        let blocks = self.next - self.base;
        self.set_len(blocks)?;
        self.file = None;
        Ok(blocks)
    }

    /// The first block of the file that is written now.
    pub(super) fn base(&self) -> u32 {
        self.base
    }

    /// Makes the file `blocks` long.
    pub(super) fn set_len(&self, blocks: u32) -> Result<()> {
        let bytes = u64::from(blocks) * BLOCK as u64;
        self.file()?
            .set_len(bytes)
            .context("set size of image file")
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().context("data that no layer has")
    }

    /// Reads at a byte offset of the file; less than `into` holds only at its end.
    pub(super) fn read_at(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        self.file()?.read_at(into, at).context("read image file")
    }

    /// The next free block.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Takes `count` blocks and returns the first.
    pub(super) fn take(&mut self, count: u64) -> Result<u32> {
        let first = self.next;
        self.check_room(count)?;
        self.next = u32::try_from(u64::from(first) + count)?;
        Ok(first)
    }

    /// Counts bytes that will need blocks in the end, so that the limit holds for the scratch file, too: a short entry
    /// may claim a long list of chunks.
    pub(super) fn wait(&mut self, bytes: u64) -> Result<()> {
        self.waiting_bytes += bytes;
        self.check_room(0)
    }

    /// The blocks for all that waits are about to be taken.
    pub(super) fn end_waiting(&mut self) {
        self.waiting_bytes = 0;
    }

    /// Refuses what would make the image too large.
    pub(super) fn check_room(&self, count: u64) -> Result<()> {
        let end = u64::from(self.next).saturating_add(count);
        let bytes = end
            .saturating_mul(BLOCK as u64)
            .saturating_add(self.waiting_bytes);
        let fits = bytes <= self.limit_bytes && end < u64::from(u32::MAX);
        ensure!(
            fits,
            "image is larger than the limit of {} bytes",
            self.limit_bytes
        );
        let kept = u64::from(self.kept) * BLOCK as u64;
        ensure!(
            bytes.saturating_sub(kept) <= self.limit_new_bytes,
            "image is larger than the limit: {}",
            room_left(self.limit_new_bytes)
        );
        Ok(())
    }

    /// Writes whole blocks (the last may be cut) from block `first` on, leaving out those of zeros; says whether
    /// there was anything but zeros.
    pub(super) fn write(&self, first: u64, bytes: &[u8]) -> Result<bool> {
        let mut wrote = false;
        let mut at = (first - u64::from(self.base)) * BLOCK as u64;
        for run in bytes.chunk_by_zero_blocks() {
            if run.is_data {
                self.write_at(at, run.bytes)?;
                wrote = true;
            }
            at += run.bytes.len() as u64;
        }
        Ok(wrote)
    }

    /// Writes at a byte offset of the file.
    pub(super) fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file()?
            .write_all_at(bytes, at)
            .context("write image file")
    }

    /// Gives the room of `count` blocks back to the file system; where it cannot punch holes, zeros are written,
    /// so that the file's bytes are the same everywhere. What other images use, too, stays.
    pub(super) fn give_back(&self, first: u32, count: u64) -> Result<u64> {
        let (at, length) = (u64::from(first) * BLOCK as u64, count * BLOCK as u64);
        if length == 0 || !self.is_own {
            return Ok(length);
        }
        let file = self.file()?;
        let end = file.metadata().context("read size of image file")?.len();
        let length = length.min(end.saturating_sub(at));
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(file, flags, i64::try_from(at)?, i64::try_from(length)?) {
            Ok(()) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.write_zeros(at, length)?,
            Err(_) if length == 0 => {}
            Err(error) => return Err(error).context("punch hole into image file"),
        }
        Ok(length)
    }

    fn write_zeros(&self, at: u64, length: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        for offset in (0..length).step_by(BLOCK) {
            let part = usize::try_from((length - offset).min(BLOCK as u64))?;
            self.write_at(at + offset, &zeros[..part])?;
        }
        Ok(())
    }
}

struct Run<'a> {
    is_data: bool,
    bytes: &'a [u8],
}

trait ZeroRuns {
    fn chunk_by_zero_blocks(&self) -> impl Iterator<Item = Run<'_>>;
}

impl ZeroRuns for [u8] {
    fn chunk_by_zero_blocks(&self) -> impl Iterator<Item = Run<'_>> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let mut blocks = rest.chunks(BLOCK);
            let is_data = !is_zero(blocks.next()?);
            let more: usize = blocks
                .take_while(|block| is_zero(block) != is_data)
                .map(<[u8]>::len)
                .sum();
            let (bytes, left) = rest.split_at(rest.len().min(BLOCK) + more);
            rest = left;
            Some(Run { is_data, bytes })
        })
    }
}

/// Tests groups of 64 bytes, which the compiler turns into vector instructions.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let mut groups = bytes.chunks_exact(64);
    groups.all(|group| group.iter().fold(0, |all, &byte| all | byte) == 0)
        && groups.remainder().iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_runs_of_mixed_blocks_are_told_apart() {
        let mut bytes = vec![0; BLOCK * 5 + 10];
        bytes[BLOCK + 4000] = 1;
        bytes[BLOCK * 2] = 1;
        bytes[BLOCK * 5 + 9] = 1;
        let runs: Vec<_> = bytes
            .chunk_by_zero_blocks()
            .map(|run| (run.is_data, run.bytes.len()))
            .collect();
        assert_eq!(
            runs,
            [
                (false, BLOCK),
                (true, BLOCK * 2),
                (false, BLOCK * 2),
                (true, 10)
            ]
        );
    }

    #[test]
    fn blocks_beyond_the_limit_are_refused() {
        let limits = Limits {
            image_bytes: 4 * BLOCK as u64,
            ..Limits::default()
        };
        let mut blocks = Blocks::new(tempfile::tempfile().expect("temporary file"), &limits);
        assert_eq!(blocks.take(3).expect("three blocks"), 1);
        assert!(blocks.take(1).is_err());
        assert!(blocks.take(u64::MAX - 9).is_err());
    }
}

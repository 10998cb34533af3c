//! A disk's contents: pieces of files laid at offsets, zeros between them. Knows neither guest nor queue.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Result, ensure};
use vmm_sys_util::fallocate::{FallocateMode, fallocate};

/// One file's place on a disk.
pub struct Extent {
    /// First byte on the disk.
    pub offset: u64,
    /// Length, bytes: the file from its start.
    pub bytes: u64,
    /// Open for what the disk allows.
    pub file: File,
}

/// Extents in order, none overlapping another. A clone is the same disk: what is laid on one is on the other.
#[derive(Clone)]
pub struct Extents {
    /// Looked up under the lock, read and written without.
    extents: Arc<RwLock<Vec<Arc<Extent>>>>,
    capacity_bytes: u64,
}

/// What lies at an offset: a piece of a file or of a gap.
struct Piece {
    /// The extent, and where in its file.
    extent: Option<(Arc<Extent>, u64)>,
    bytes: u64,
}

impl Extents {
    /// Lays `extents` on a disk of `capacity_bytes`.
    ///
    /// # Errors
    /// When one has no room.
    pub fn new(extents: Vec<Extent>, capacity_bytes: u64) -> Result<Self> {
        let disk = Self {
            extents: Arc::default(),
            capacity_bytes,
        };
        extents
            .into_iter()
            .try_for_each(|extent| disk.lay(extent))?;
        Ok(disk)
    }

    /// Lays one more extent on the disk, which may be in use.
    ///
    /// # Errors
    /// When it overlaps another or reaches beyond the end.
    pub fn lay(&self, extent: Extent) -> Result<()> {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        let place = extents.partition_point(|other| other.offset + other.bytes <= extent.offset);
        let next = extents.get(place);
        let end = next.map_or(self.capacity_bytes, |next| next.offset);
        ensure!(
            extent.offset.saturating_add(extent.bytes) <= end,
            "extent at byte {} has no room on the disk",
            extent.offset
        );
        extents.insert(place, Arc::new(extent));
        Ok(())
    }

    /// Takes the extents that begin in `range` off the disk, which has zeros there from now on.
    pub fn take_off(&self, range: Range<u64>) {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        extents.retain(|extent| !range.contains(&extent.offset));
    }

    fn laid(&self) -> RwLockReadGuard<'_, Vec<Arc<Extent>>> {
        self.extents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies at `offset`, at most `bytes` of it and, for `bytes` over 0, never nothing.
    fn piece(&self, offset: u64, bytes: u64) -> Piece {
        let extents = self.laid();
        let after = extents.partition_point(|extent| extent.offset <= offset);
        let (before, after) = extents.split_at(after);
        let end = after.first().map_or(u64::MAX, |next| next.offset);
        let within = before.last().map(|extent| (extent, offset - extent.offset));
        match within.filter(|(extent, at)| *at < extent.bytes) {
            Some((extent, at)) => Piece {
                extent: Some((Arc::clone(extent), at)),
                bytes: bytes.min(extent.bytes - at),
            },
            None => Piece {
                extent: None,
                bytes: bytes.min(end - offset),
            },
        }
    }

    /// Size of the disk, bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Sees that `bytes` from `offset` on lie on the disk.
    ///
    /// # Errors
    /// `InvalidInput` when they do not.
    pub fn check(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.capacity_bytes => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Fills `buffer` from `offset` on. A file shorter than its extent reads as zeros there.
    ///
    /// # Errors
    /// Those of the files.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let piece = self.piece(offset + done as u64, rest.len() as u64);
            let part = &mut rest[..usize::try_from(piece.bytes).unwrap_or(usize::MAX)];
            let read = match piece.extent {
                Some((extent, at)) => extent.file.read_at(part, at),
                None => Ok(0),
            };
            match read {
                Ok(0) => {
                    part.fill(0);
                    done += part.len();
                }
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes `data` from `offset` on.
    ///
    /// # Errors
    /// Those of the files; `InvalidInput` where there is none.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut done = 0;
        self.for_each_piece(offset, data.len() as u64, |file, at, bytes| {
            let end = done + usize::try_from(bytes).unwrap_or(usize::MAX);
            file.write_all_at(&data[done..end], at)?;
            done = end;
            Ok(())
        })
    }

    /// Makes `bytes` from `offset` on zeros, and frees their space if `free`.
    ///
    /// # Errors
    /// Those of the files; `InvalidInput` where there is none.
    pub fn zero(&self, offset: u64, bytes: u64, free: bool) -> io::Result<()> {
        self.for_each_piece(offset, bytes, |file, at, bytes| {
            let zeroed = |mode| {
                let zeroed = fallocate(file, mode, true, at, bytes);
                zeroed.map_err(|error| io::Error::from_raw_os_error(error.errno()))
            };
            if !free {
                match zeroed(FallocateMode::ZeroRange) {
                    // tmpfs makes holes only.
                    Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                    done => return done,
                }
            }
            zeroed(FallocateMode::PunchHole)
        })
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// Those of the files.
    pub fn flush(&self) -> io::Result<()> {
        let extents = self.laid().clone();
        extents
            .iter()
            .try_for_each(|extent| extent.file.sync_data())
    }

    fn for_each_piece(
        &self,
        mut offset: u64,
        mut bytes: u64,
        mut act: impl FnMut(&File, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        while bytes > 0 {
            let piece = self.piece(offset, bytes);
            let (extent, at) = piece.extent.ok_or(io::ErrorKind::InvalidInput)?;
            act(&extent.file, at, piece.bytes)?;
            (offset, bytes) = (offset + piece.bytes, bytes - piece.bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn extent(offset: u64, contents: &[u8], bytes: u64) -> Extent {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(contents).unwrap();
        Extent {
            offset,
            bytes,
            file,
        }
    }

    #[test]
    fn extents_overlapping_or_beyond_the_end_are_refused() {
        assert!(Extents::new(vec![extent(0, b"", 10), extent(9, b"", 1)], 100).is_err());
        assert!(Extents::new(vec![extent(99, b"", 2)], 100).is_err());
        assert!(Extents::new(vec![extent(u64::MAX, b"", 2)], 100).is_err());
        assert!(Extents::new(vec![extent(9, b"", 91), extent(0, b"", 9)], 100).is_ok());
    }

    #[test]
    fn extents_laid_and_taken_off_are_seen_by_every_clone_and_have_their_own_room() {
        let disk = Extents::new(vec![extent(10, b"old", 3)], 20).unwrap();
        let device = disk.clone();
        for (offset, bytes) in [(8, 3), (12, 1), (10, 3), (19, 2), (u64::MAX, 1)] {
            assert!(disk.lay(extent(offset, b"", bytes)).is_err(), "{offset}");
        }
        disk.lay(extent(13, b"new", 7)).unwrap();
        disk.lay(extent(0, b"first", 10)).unwrap();
        disk.take_off(10..13);
        let mut buffer = [0xff; 16];
        device.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"first\0\0\0\0\0\0\0\0new");
        disk.lay(extent(10, b"xyz", 3)).unwrap();
        device.read_at(8, &mut buffer[..6]).unwrap();
        assert_eq!(&buffer[..6], b"\0\0xyzn");
    }

    #[test]
    fn extents_read_across_files_and_gaps_gives_zeros_between() {
        let extents = Extents::new(vec![extent(2, b"abc", 4), extent(8, b"xy", 2)], 12).unwrap();
        let mut buffer = [0xff; 12];
        extents.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0\0abc\0\0\0xy\0\0");
    }

    #[test]
    fn extents_write_across_two_files_lands_in_both_and_a_gap_refuses() {
        let extents = Extents::new(vec![extent(0, b"abc", 3), extent(3, b"def", 3)], 12).unwrap();
        extents.write_at(2, b"XY").unwrap();
        let mut buffer = [0; 6];
        extents.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"abXYef");
        assert_eq!(
            extents.write_at(5, b"12").unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn extents_zero_frees_or_keeps_but_reads_zeros() {
        let extents = Extents::new(vec![extent(0, &[7; 16384], 16384)], 16384).unwrap();
        extents.zero(4096, 4096, true).unwrap();
        extents.zero(8192, 100, false).unwrap();
        let mut buffer = [1; 16384];
        extents.read_at(0, &mut buffer).unwrap();
        assert!(buffer[4096..8292].iter().all(|byte| *byte == 0));
        assert!(
            buffer[..4096]
                .iter()
                .chain(&buffer[8292..])
                .all(|byte| *byte == 7)
        );
    }

    proptest! {
        #[test]
        fn extents_pieces_cover_any_range_exactly(
            lengths in prop::collection::vec((0u64..50, 0u64..50), 0..8), offset in 0u64..400, bytes in 1u64..400
        ) {
            let mut at = 0;
            let mut list = Vec::new();
            for (gap, length) in lengths {
                list.push(extent(at + gap, b"", length));
                at += gap + length;
            }
            let extents = Extents::new(list, 1000).unwrap();
            let (mut position, mut left) = (offset, bytes);
            while left > 0 {
                let piece = extents.piece(position, left);
                prop_assert!(piece.bytes > 0 && piece.bytes <= left);
                (position, left) = (position + piece.bytes, left - piece.bytes);
            }
        }
    }
}

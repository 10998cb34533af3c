//! Finds each inode, with what lies behind it, a place in the metadata blocks. Pure.

use anyhow::{Context, Result};

use super::spec::{BLOCK, SLOT_BYTES};

/// Blocks with room left that are kept in mind; older ones stay as they are, so that neighbours lie together.
const OPEN_BLOCKS: usize = 64;

/// The metadata blocks so far.
pub(super) struct Places {
    blocks: u64,
    /// Block and its first free byte, oldest first.
    open: Vec<(u64, usize)>,
}

impl Places {
    /// The first slots stay empty: readers of directories take inode number 0 for a deleted entry.
    pub(super) fn new() -> Self {
        Self {
            blocks: 1,
            open: vec![(0, 2 * SLOT_BYTES)],
        }
    }

    /// A slot for `bytes` bytes: within one block if they fit one, else from the start of a block.
    pub(super) fn take(&mut self, bytes: usize) -> Result<u32> {
        let fitting = self
            .open
            .iter()
            .position(|&(_, used)| used + bytes <= BLOCK);
        let (block, at) = match fitting {
            Some(index) => self.open.remove(index),
            None => {
                let first = self.blocks;
                self.blocks += bytes.div_ceil(BLOCK) as u64;
                (first, 0)
            }
        };
        self.reopen(block, at + bytes);
        let slot = block * (BLOCK / SLOT_BYTES) as u64 + (at / SLOT_BYTES) as u64;
        u32::try_from(slot)
            .ok()
            .filter(|&slot| slot != u32::MAX)
            .context("image has more metadata than EROFS inode numbers reach")
    }

    /// How many blocks the metadata takes.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    fn reopen(&mut self, block: u64, end: usize) {
        let last = block + (end / BLOCK) as u64;
        let used = (end % BLOCK).next_multiple_of(SLOT_BYTES);
        if used == 0 || used + 2 * SLOT_BYTES > BLOCK {
            return;
        }
        if self.open.len() == OPEN_BLOCKS {
            self.open.remove(0);
        }
        let index = self.open.partition_point(|&(other, _)| other < last);
        self.open.insert(index, (last, used));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_fill_the_oldest_block_with_room() {
        let mut places = Places::new();
        assert_eq!(places.take(64).expect("first"), 2);
        assert_eq!(places.take(4000).expect("second block"), 128);
        assert_eq!(places.take(100).expect("first block again"), 4);
        assert_eq!(places.take(10_000).expect("three blocks"), 256);
        assert_eq!(places.take(2000).expect("first block again"), 8);
        assert_eq!(places.blocks(), 5);
    }

    proptest! {
        #[test]
        fn places_of_any_sizes_lie_apart_and_small_ones_within_a_block(
            sizes in prop::collection::vec(prop_oneof![8 => 64usize..400, 4 => 64usize..4200, 1 => 4096usize..300_000], 0..300)
        ) {
            let mut places = Places::new();
            let mut spans = Vec::new();
            for size in sizes {
                let start = places.take(size).expect("a place") as usize * SLOT_BYTES;
                prop_assert!(size > BLOCK || start / BLOCK == (start + size - 1) / BLOCK);
                spans.push((start, start + size));
            }
            spans.sort_unstable();
            prop_assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let end = spans.last().map_or(0, |span| span.1);
            prop_assert!(end as u64 <= places.blocks() * BLOCK as u64);
        }
    }
}

//! The table of the files in which layers have their data (struct erofs_deviceslot). A kernel that is given those reads each where
//! the table has it; one that is given a single device takes all to follow one another on that.

use anyhow::{Context, Result};

use super::blocks::Blocks;
use super::spec::{BLOCK, DEVICE_BLOCKS_AT, DEVICE_SLOT_BYTES};

/// The blocks of each file, in order.
#[derive(Default)]
pub(super) struct Devices(Vec<u32>);

impl Devices {
    /// One more file follows; one without data is none.
    pub(super) fn add(&mut self, blocks: u32) {
        if blocks > 0 {
            self.0.push(blocks);
        }
    }

    pub(super) fn count(&self) -> Result<u16> {
        u16::try_from(self.0.len()).context("too many layers with data")
    }

    /// Takes blocks for the table; gives the first, 0 if there is none.
    pub(super) fn take_table(&self, blocks: &mut Blocks) -> Result<u32> {
        match (self.0.len() * DEVICE_SLOT_BYTES).div_ceil(BLOCK) {
            0 => Ok(0),
            count => blocks.take(count as u64),
        }
    }

    /// Writes the table at block `at`; the first file begins at block `mapped`.
    pub(super) fn write(&self, to: &Blocks, at: u32, mut mapped: u32) -> Result<()> {
        let mut table = vec![0; self.0.len() * DEVICE_SLOT_BYTES];
        for (slot, blocks) in table.chunks_exact_mut(DEVICE_SLOT_BYTES).zip(&self.0) {
            let numbers = [blocks.to_le_bytes(), mapped.to_le_bytes()].concat();
            slot[DEVICE_BLOCKS_AT..DEVICE_BLOCKS_AT + numbers.len()].copy_from_slice(&numbers);
            mapped += blocks;
        }
        to.write_at(u64::from(at) * BLOCK as u64, &table)
    }
}

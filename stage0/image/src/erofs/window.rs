//! Metadata blocks in memory while inodes are written into them, so that a block of many small inodes costs one
//! write. Owned by the metadata pass.

use anyhow::Result;

use super::blocks::Blocks;
use super::spec::BLOCK;

/// Blocks held at once, each in the place that its number gives it.
const HELD: usize = 256;

/// The blocks held.
pub(super) struct Window<'a> {
    blocks: &'a Blocks,
    held: Vec<Held>,
}

#[derive(Default, Clone)]
struct Held {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(blocks: &'a Blocks) -> Self {
        Self {
            blocks,
            held: vec![Held::default(); HELD],
        }
    }

    /// Writes at a byte offset of the image file.
    pub(super) fn write_at(&mut self, mut at: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let number = at / BLOCK as u64;
            let skip = usize::try_from(at % BLOCK as u64)?;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - skip));
            self.hold(number)?[skip..skip + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Writes all blocks held.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Self { blocks, held } = self;
        held.iter_mut().try_for_each(|held| let_go(blocks, held))
    }

    fn hold(&mut self, number: u64) -> Result<&mut [u8]> {
        let held = &mut self.held[usize::try_from(number)? % HELD];
        if held.number != Some(number) {
            let_go(self.blocks, held)?;
            held.bytes.clear();
            held.bytes.resize(BLOCK, 0);
            // Beyond the end of the file, and where nothing was written, there are zeros.
            let mut filled = 0;
            while filled < BLOCK {
                let at = number * BLOCK as u64 + filled as u64;
                match self.blocks.read_at(at, &mut held.bytes[filled..])? {
                    0 => break,
                    read => filled += read,
                }
            }
            held.number = Some(number);
        }
        Ok(&mut held.bytes)
    }
}

fn let_go(blocks: &Blocks, held: &mut Held) -> Result<()> {
    match held.number.take() {
        Some(number) => blocks.write_at(number * BLOCK as u64, &held.bytes),
        None => Ok(()),
    }
}

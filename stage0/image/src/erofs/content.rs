//! The content of one file on its way into the image: data between holes in, blocks and at most one list of
//! chunks out. Memory: one buffer and 256 KiB of chunk numbers, whatever the file claims to be.

use std::io::Read;

use anyhow::{Context, Result};

use super::blocks::{Blocks, is_zero};
use super::spec::{BLOCK, INODE_BYTES, NULL_ADDR};
use crate::scratch::Scratch;
use crate::tree::{Form, Record};

/// Chunks of one file; the list costs 4 bytes each.
pub(super) const MAX_CHUNKS: u64 = 65_536;
/// Smallest chunk; shorter runs of zeros are holes of the image file only.
const MIN_CHUNK_BITS: u8 = 16;
/// Read and written at once.
const PIECE: usize = 64 << 10;

/// A piece of data in a sparse file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A regular file's content: `data` yields the bytes of all extents one after another.
pub(crate) struct Content<'a> {
    /// Size in bytes, holes included.
    pub(crate) size: u64,
    /// In order, without overlap, none beyond the size.
    pub(crate) extents: Vec<Extent>,
    pub(crate) data: &'a mut dyn Read,
}

impl<'a> Content<'a> {
    /// A file without holes.
    pub(crate) fn whole(size: u64, data: &'a mut dyn Read) -> Self {
        Self {
            size,
            extents: vec![Extent {
                offset: 0,
                length: size,
            }],
            data,
        }
    }

    /// Where the hole at `position` ends; `position` itself inside data.
    fn hole_end(&self, position: u64, extent: &mut usize) -> u64 {
        while self
            .extents
            .get(*extent)
            .is_some_and(|extent| extent.offset + extent.length <= position)
        {
            *extent += 1;
        }
        self.extents
            .get(*extent)
            .map_or(self.size, |extent| extent.offset.max(position))
    }

    /// Fills `buffer` with the bytes from `position` on.
    fn fill(&mut self, mut position: u64, mut extent: usize, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let hole = usize::try_from(self.hole_end(position, &mut extent) - position)
                .unwrap_or(usize::MAX);
            let (zeros, rest) = buffer.split_at_mut(hole.min(buffer.len()));
            zeros.fill(0);
            position += zeros.len() as u64;
            buffer = rest;
            if let Some(data) = self
                .extents
                .get(extent)
                .filter(|data| data.offset <= position && !buffer.is_empty())
            {
                let left =
                    usize::try_from(data.offset + data.length - position).unwrap_or(usize::MAX);
                let (bytes, rest) = buffer.split_at_mut(left.min(buffer.len()));
                self.data
                    .read_exact(bytes)
                    .context("content is cut short")?;
                position += bytes.len() as u64;
                buffer = rest;
            }
        }
        Ok(())
    }
}

/// Copies a file's content into blocks and notes in `record` where it lies.
pub(super) fn store(
    mut content: Content<'_>,
    record: &mut Record,
    blocks: &mut Blocks,
    scratch: &mut Scratch,
) -> Result<()> {
    record.size = content.size;
    let mut copy = Copy::new(content.size);
    while copy.position < content.size {
        copy.one_chunk(&mut content, blocks)?;
    }
    copy.finish(record, blocks, scratch)
}

/// A copy in progress.
struct Copy {
    size: u64,
    position: u64,
    extent: usize,
    chunk_bits: u8,
    /// Block number of each chunk so far.
    chunks: Vec<u32>,
    has_holes: bool,
    buffer: Vec<u8>,
    /// The bytes after the last whole block.
    tail: Vec<u8>,
}

impl Copy {
    fn new(size: u64) -> Self {
        let mut chunk_bits = MIN_CHUNK_BITS;
        while size.div_ceil(1 << chunk_bits) > MAX_CHUNKS {
            chunk_bits += 1;
        }
        let buffer = vec![0; usize::try_from(size).unwrap_or(PIECE).min(PIECE)];
        Self {
            size,
            position: 0,
            extent: 0,
            chunk_bits,
            chunks: Vec::new(),
            has_holes: false,
            buffer,
            tail: Vec::new(),
        }
    }

    /// A file of less than one chunk has no list of chunks.
    fn may_have_holes(&self) -> bool {
        self.size > 1 << self.chunk_bits
    }

    /// Copies up to the end of the chunk; one of zeros takes no block.
    fn one_chunk(&mut self, content: &mut Content<'_>, blocks: &mut Blocks) -> Result<()> {
        let end = self.size.min(self.position + (1 << self.chunk_bits));
        if self.may_have_holes() && content.hole_end(self.position, &mut self.extent) >= end {
            self.position = end;
            self.add_hole();
            return Ok(());
        }
        let length = end - self.position;
        let first = blocks.next();
        blocks.check_room(length / BLOCK as u64)?;
        let mut is_data = !self.may_have_holes();
        let mut block = u64::from(first);
        while self.position < end {
            let piece = usize::try_from((end - self.position).min(PIECE as u64))?;
            content.hole_end(self.position, &mut self.extent);
            content.fill(self.position, self.extent, &mut self.buffer[..piece])?;
            let (whole, tail) = self.buffer[..piece].split_at(piece / BLOCK * BLOCK);
            is_data |= blocks.write(block, whole)? | !is_zero(tail);
            self.tail.extend_from_slice(tail);
            block += (piece / BLOCK) as u64;
            self.position += piece as u64;
        }
        if is_data {
            // The last block of a file is taken once it is known where the tail goes.
            let taken = blocks.take(length / BLOCK as u64)?;
            self.chunks.push(taken);
        } else {
            self.add_hole();
        }
        Ok(())
    }

    fn add_hole(&mut self) {
        self.chunks.push(NULL_ADDR);
        self.has_holes = true;
    }

    fn finish(self, record: &mut Record, blocks: &mut Blocks, scratch: &mut Scratch) -> Result<()> {
        let fits_inode =
            INODE_BYTES + usize::try_from(record.xattr_bytes)? + self.tail.len() <= BLOCK;
        let tail_is_hole = self.chunks.last() == Some(&NULL_ADDR);
        if self.has_holes {
            if !self.tail.is_empty() && !tail_is_hole {
                put_tail(&self.tail, blocks)?;
            }
            let list: Vec<u8> = self
                .chunks
                .iter()
                .flat_map(|chunk| chunk.to_le_bytes())
                .collect();
            record.form = Form::Chunked;
            record.chunk_bits = self.chunk_bits;
            record.extra_bytes = u32::try_from(list.len())?;
            record.extra = scratch.append(&[&list])?;
            return Ok(());
        }
        record.start = self.chunks.first().copied().unwrap_or(0);
        record.form = Form::Plain;
        if self.tail.is_empty() {
            return Ok(());
        }
        if fits_inode {
            record.form = Form::Inline;
            record.extra_bytes = u32::try_from(self.tail.len())?;
            record.extra = scratch.append(&[&self.tail])?;
            return Ok(());
        }
        put_tail(&self.tail, blocks)
    }
}

/// Moves all chunks of a list by that many blocks, but not its holes.
pub(super) fn move_chunks(list: &mut [u8], by: u32) {
    for chunk in list.as_chunks_mut().0 {
        let first = u32::from_le_bytes(*chunk);
        if first != NULL_ADDR {
            *chunk = first.wrapping_add(by).to_le_bytes();
        }
    }
}

/// The chunks of a file that are no holes, by its list: the first block of each, and how many.
pub(super) fn chunks_of(record: &Record, list: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    let chunk_bytes = 1_u64
        .checked_shl(record.chunk_bits.into())
        .unwrap_or(u64::MAX);
    let size = record.size;
    list.as_chunks()
        .0
        .iter()
        .zip(0_u64..)
        .map(move |(first, index)| {
            let left = size.saturating_sub(index.saturating_mul(chunk_bytes));
            let blocks = left.min(chunk_bytes).div_ceil(BLOCK as u64);
            (u32::from_le_bytes(*first), blocks)
        })
        .filter(|(first, _)| *first != NULL_ADDR)
}

fn put_tail(tail: &[u8], blocks: &mut Blocks) -> Result<()> {
    let block = blocks.take(1)?;
    blocks.write(u64::from(block), tail)?;
    Ok(())
}

//! Where a file of an image has holes: which of its chunks have no address. Crate erofs-rs, which reads the rest, does not tell, and
//! ten GiB of zeros take a minute to look through.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

use super::content::MAX_CHUNKS;
use super::spec::{BLOCK, BLOCK_BITS, CHUNK_BASED, INODE_BYTES, NULL_ADDR, SLOT_BYTES};
use super::xattr;

/// The chunks of a file.
pub(crate) struct Chunks {
    /// Bytes of each but the last.
    pub(crate) bytes: u64,
    /// Which of them are holes.
    pub(crate) holes: Vec<bool>,
}

/// The chunks of the inode `nid`, a file of an image of ours, whose metadata begins at block `metadata`.
///
/// # Errors
/// If the image is damaged.
pub(crate) fn chunks(image: &File, metadata: u32, nid: u64) -> Result<Chunks> {
    let slot = nid.checked_mul(SLOT_BYTES as u64);
    let at = slot.and_then(|slot| slot.checked_add(u64::from(metadata) * BLOCK as u64));
    let at = at.context("an inode beyond all files")?;
    let mut inode = [0; INODE_BYTES];
    image
        .read_exact_at(&mut inode, at)
        .context("read an inode")?;
    let half = |at: usize| u16::from_le_bytes([inode[at], inode[at + 1]]);
    ensure!(half(0) >> 1 == CHUNK_BASED, "an inode without chunks");
    let size = u64::from_le_bytes(std::array::from_fn(|index| inode[8 + index]));
    let bits = u32::from(BLOCK_BITS) + u32::from(half(16));
    let bytes = 1_u64
        .checked_shl(bits)
        .context("chunks larger than any file")?;
    let count = size.div_ceil(bytes);
    ensure!(count <= MAX_CHUNKS, "more chunks than a file has");
    let mut table = vec![0; usize::try_from(count)? * 4];
    let behind = at + INODE_BYTES as u64 + xattr::bytes(half(2));
    image
        .read_exact_at(&mut table, behind)
        .context("read the chunks of a file")?;
    let is_hole = |address: &[u8]| *address == NULL_ADDR.to_le_bytes();
    let holes = table.chunks_exact(4).map(is_hole).collect();
    Ok(Chunks { bytes, holes })
}

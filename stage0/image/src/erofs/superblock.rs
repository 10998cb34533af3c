//! The superblock: written last, so that a file cut short by an accident is no EROFS image.

use anyhow::Result;

use super::spec::{
    BLOCK, BLOCK_BITS, COMPAT_SB_CHKSUM, DEVICE_SLOT_BYTES, INCOMPAT_CHUNKED_FILE,
    INCOMPAT_DEVICE_TABLE, SUPER_MAGIC, SUPER_OFFSET,
};

/// What the superblock says.
pub(super) struct Superblock {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    /// Blocks of the image's own file.
    pub(super) blocks: u32,
    /// The metadata's first block.
    pub(super) metadata: u32,
    pub(super) has_chunks: bool,
    /// Files of layers that have data.
    pub(super) devices: u16,
    /// The first block of the table of these.
    pub(super) device_table: u32,
}

impl Superblock {
    /// The first block of the image from SUPER_OFFSET on (struct erofs_super_block and zeros).
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let size = BLOCK - usize::try_from(SUPER_OFFSET).unwrap_or_default();
        let mut bytes = Vec::with_capacity(size);
        bytes.extend(SUPER_MAGIC.to_le_bytes());
        bytes.extend([0; 4]); // checksum
        bytes.extend(COMPAT_SB_CHKSUM.to_le_bytes());
        bytes.extend([BLOCK_BITS, 0]);
        bytes.extend(self.root_nid.to_le_bytes());
        bytes.extend(self.inodes.to_le_bytes());
        bytes.extend([0; 12]); // build time: the same input gives the same bytes
        bytes.extend(self.blocks.to_le_bytes());
        bytes.extend(self.metadata.to_le_bytes());
        bytes.extend([0; 4 + 16 + 16]); // no shared attributes; UUID and volume name
        let chunks = u32::from(self.has_chunks) * INCOMPAT_CHUNKED_FILE;
        let devices = u32::from(self.devices > 0) * INCOMPAT_DEVICE_TABLE;
        bytes.extend((chunks | devices).to_le_bytes());
        bytes.extend([0; 2]); // compression
        bytes.extend(self.devices.to_le_bytes());
        let table = self.device_table * u32::try_from(BLOCK / DEVICE_SLOT_BYTES)?;
        bytes.extend(u16::try_from(table)?.to_le_bytes());
        bytes.resize(size, 0);
        // CRC32C from ~0 without the closing inversion.
        let checksum = !crc32c::crc32c(&bytes);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }
}

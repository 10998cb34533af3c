//! An inode on disk (struct erofs_inode_extended). Pure; called by the metadata pass.

use super::spec::{BLOCK_BITS, CHUNK_BASED, FLAT_INLINE, FLAT_PLAIN, INODE_BYTES, INODE_EXTENDED};
use super::xattr;
use crate::tree::{Form, Record};

/// Encodes an inode whose content begins at block `start` (or is a device); `number` is what 32-bit callers are told.
pub(super) fn encode(record: &Record, start: u32, number: u32, links: u32) -> Vec<u8> {
    let (layout, position) = match record.form {
        Form::Plain | Form::Empty => (FLAT_PLAIN, start),
        Form::Inline => (FLAT_INLINE, start),
        Form::Chunked => (CHUNK_BASED, u32::from(record.chunk_bits - BLOCK_BITS)),
    };
    let mut inode = Vec::with_capacity(INODE_BYTES);
    inode.extend((INODE_EXTENDED | layout << 1).to_le_bytes());
    inode.extend(xattr::count(record.xattr_bytes).to_le_bytes());
    inode.extend(record.mode.to_le_bytes());
    inode.extend([0; 2]);
    inode.extend(record.size.to_le_bytes());
    inode.extend(position.to_le_bytes());
    inode.extend(number.to_le_bytes());
    inode.extend(record.uid.to_le_bytes());
    inode.extend(record.gid.to_le_bytes());
    inode.extend(record.mtime.to_le_bytes());
    inode.extend(record.mtime_ns.to_le_bytes());
    inode.extend(links.to_le_bytes());
    inode.resize(INODE_BYTES, 0);
    inode
}

/// Bytes of an inode with what lies behind it.
pub(super) fn inode_bytes(record: &Record) -> u64 {
    INODE_BYTES as u64 + u64::from(record.xattr_bytes) + u64::from(record.behind_bytes())
}

/// A device number as inodes hold it (new_encode_dev): 12 bits of major, 20 of minor. None if it does not fit.
pub(super) fn device_number(major: u32, minor: u32) -> Option<u32> {
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

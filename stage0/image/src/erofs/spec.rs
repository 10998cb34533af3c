//! Numbers of the EROFS on-disk format (Linux, fs/erofs/erofs_fs.h). Only what Linux 6.12 understands.

/// EROFS_SUPER_OFFSET.
pub(super) const SUPER_OFFSET: u64 = 1024;
/// EROFS_SUPER_MAGIC_V1.
pub(super) const SUPER_MAGIC: u32 = 0xe0f5_e1e2;
/// EROFS_FEATURE_COMPAT_SB_CHKSUM.
pub(super) const COMPAT_SB_CHKSUM: u32 = 1;
/// EROFS_FEATURE_INCOMPAT_CHUNKED_FILE.
pub(super) const INCOMPAT_CHUNKED_FILE: u32 = 4;
/// EROFS_FEATURE_INCOMPAT_DEVICE_TABLE.
pub(super) const INCOMPAT_DEVICE_TABLE: u32 = 8;
/// Size of struct erofs_deviceslot (EROFS_DEVT_SLOT_SIZE), which is also the unit of the table's offset.
pub(super) const DEVICE_SLOT_BYTES: usize = 128;
/// Where in a slot struct erofs_deviceslot has `blocks`; `mapped_blkaddr` follows.
pub(super) const DEVICE_BLOCKS_AT: usize = 64;

/// Block size as a power of two.
pub(super) const BLOCK_BITS: u8 = 12;
/// Block size in bytes.
pub(crate) const BLOCK: usize = 1 << BLOCK_BITS;
/// EROFS_NULL_ADDR: a chunk that is a hole.
pub(super) const NULL_ADDR: u32 = u32::MAX;

/// Size of struct erofs_inode_extended.
pub(super) const INODE_BYTES: usize = 64;
/// EROFS_ISLOTBITS: inode numbers count units of 32 bytes from the start of the metadata.
pub(super) const SLOT_BYTES: usize = 32;
/// EROFS_INODE_LAYOUT_EXTENDED, in bit 0 of `i_format`.
pub(super) const INODE_EXTENDED: u16 = 1;
/// EROFS_INODE_FLAT_PLAIN, in bits 1 to 3 of `i_format`.
pub(super) const FLAT_PLAIN: u16 = 0;
/// EROFS_INODE_FLAT_INLINE.
pub(super) const FLAT_INLINE: u16 = 2;
/// EROFS_INODE_CHUNK_BASED.
pub(super) const CHUNK_BASED: u16 = 4;

/// Size of struct erofs_dirent.
pub(super) const DIRENT_BYTES: usize = 12;

/// Size of struct erofs_xattr_ibody_header.
pub(super) const XATTR_HEADER_BYTES: usize = 12;
/// EROFS_XATTR_INDEX_*: the prefixes that names are stored without.
pub(super) const XATTR_PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

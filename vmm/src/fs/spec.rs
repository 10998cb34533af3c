//! Constants of the file system device in the spelling of virtio 1.2, section 5.11, and of FUSE.

/// Section 5.11.
pub const VIRTIO_ID_FS: u32 = 26;
/// Section 5.11.4: bytes of the tag.
pub const TAG_BYTES: usize = 36;

/// Size of `struct fuse_out_header`, with which every answer begins, bytes.
pub const FUSE_OUT_HEADER_BYTES: usize = 16;
/// Offset of `opcode` in `struct fuse_in_header`.
pub const FUSE_OPCODE_OFFSET: usize = 4;
/// Offset of `offset` in `struct fuse_read_in` and `fuse_write_in`, behind that header.
pub const FUSE_OFFSET_OFFSET: usize = 48;

/// Reads from a file.
pub const FUSE_READ: u32 = 15;
/// Writes to a file.
pub const FUSE_WRITE: u32 = 16;

/// Requests that are not answered.
pub const FUSE_FORGET: u32 = 2;
/// Likewise.
pub const FUSE_INTERRUPT: u32 = 36;
/// The guest unmounts; its answer is empty.
pub const FUSE_DESTROY: u32 = 38;
/// Many of [`FUSE_FORGET`].
pub const FUSE_BATCH_FORGET: u32 = 42;

//! Constants of the file system device in the spelling of virtio 1.2, section 5.11, and of FUSE.

/// Section 5.11.
pub const VIRTIO_ID_FS: u32 = 26;
/// Section 5.11.4: bytes of the tag.
pub const TAG_BYTES: usize = 36;

/// Looks for a name in a folder.
pub const FUSE_LOOKUP: u32 = 1;
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

//! Constants of the block device in the spelling of virtio 1.2, section 5.2.

/// Section 5.2.
pub const VIRTIO_ID_BLOCK: u32 = 2;

/// Section 5.2.3: `seg_max` is valid.
pub const VIRTIO_BLK_F_SEG_MAX: u64 = 1 << 2;
/// Section 5.2.3: read-only.
pub const VIRTIO_BLK_F_RO: u64 = 1 << 5;
/// Section 5.2.3: the device has a cache, and a command to flush it.
pub const VIRTIO_BLK_F_FLUSH: u64 = 1 << 9;
/// Section 5.2.3: discard.
pub const VIRTIO_BLK_F_DISCARD: u64 = 1 << 13;
/// Section 5.2.3: write zeroes.
pub const VIRTIO_BLK_F_WRITE_ZEROES: u64 = 1 << 14;

/// Request types, section 5.2.6.
pub const VIRTIO_BLK_T_IN: u32 = 0;
/// Write.
pub const VIRTIO_BLK_T_OUT: u32 = 1;
/// Flush.
pub const VIRTIO_BLK_T_FLUSH: u32 = 4;
/// Device id string.
pub const VIRTIO_BLK_T_GET_ID: u32 = 8;
/// Discard.
pub const VIRTIO_BLK_T_DISCARD: u32 = 11;
/// Write zeroes.
pub const VIRTIO_BLK_T_WRITE_ZEROES: u32 = 13;

/// Request status, section 5.2.6.
pub const VIRTIO_BLK_S_OK: u8 = 0;
/// Device or driver error.
pub const VIRTIO_BLK_S_IOERR: u8 = 1;
/// Not supported.
pub const VIRTIO_BLK_S_UNSUPP: u8 = 2;

/// The flag of a write-zeroes segment that lets the device free its space.
pub const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP: u32 = 1;

/// Unit of all addresses and of the capacity, bytes.
pub const SECTOR_BYTES: u64 = 512;
/// Request header: type, reserved, sector.
pub const HEADER_BYTES: usize = 16;
/// Discard or write-zeroes segment: sector, count, flags.
pub const SEGMENT_BYTES: usize = 16;
/// Length of the device id string.
pub const VIRTIO_BLK_ID_BYTES: usize = 20;

/// Requests in flight.
pub const QUEUE_SIZE: u16 = 256;
/// Most data descriptors of a request: with header and status they just fit the queue.
pub const SEG_MAX: u32 = 254;
/// Most sectors of one discard or write-zeroes segment.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 22;
/// Most segments of one such request.
pub const MAX_DISCARD_SEGMENTS: u32 = 32;
/// Smallest piece worth a discard, sectors: a page of the host's file.
pub const DISCARD_SECTOR_ALIGNMENT: u32 = 8;

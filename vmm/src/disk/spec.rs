//! Constants of the block device in the spelling of virtio 1.2, section 5.2, and this one's limits. Those of the features are
//! numbers of bits.

pub use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// Section 5.2.
pub const VIRTIO_ID_BLOCK: u32 = 2;

/// Request status, section 5.2.6.
pub const VIRTIO_BLK_S_OK: u8 = 0;
/// Device or driver error.
pub const VIRTIO_BLK_S_IOERR: u8 = 1;
/// Not supported.
pub const VIRTIO_BLK_S_UNSUPP: u8 = 2;

/// Unit of all addresses and of the capacity, bytes.
pub const SECTOR_BYTES: u64 = 512;
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

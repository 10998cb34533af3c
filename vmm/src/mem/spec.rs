//! Constants of the memory device in the spelling of virtio 1.2, section 5.15.

/// Section 5.15.
pub const VIRTIO_ID_MEM: u32 = 24;

/// Section 5.15.3: memory that is not plugged cannot be read either.
pub const VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// Request types, section 5.15.6.
pub const VIRTIO_MEM_REQ_PLUG: u16 = 0;
/// Unplug.
pub const VIRTIO_MEM_REQ_UNPLUG: u16 = 1;
/// Unplug all.
pub const VIRTIO_MEM_REQ_UNPLUG_ALL: u16 = 2;
/// Whether it is plugged.
pub const VIRTIO_MEM_REQ_STATE: u16 = 3;

/// Response types, section 5.15.6: done.
pub const VIRTIO_MEM_RESP_ACK: u16 = 0;
/// Not now: it would be more than the device asks for.
pub const VIRTIO_MEM_RESP_NACK: u16 = 1;
/// Not now: the device cannot.
pub const VIRTIO_MEM_RESP_BUSY: u16 = 2;
/// Malformed, out of range, or of blocks in the wrong state.
pub const VIRTIO_MEM_RESP_ERROR: u16 = 3;

/// States of blocks, section 5.15.6.4.
pub const VIRTIO_MEM_STATE_PLUGGED: u16 = 0;
/// None is plugged.
pub const VIRTIO_MEM_STATE_UNPLUGGED: u16 = 1;
/// Some are plugged.
pub const VIRTIO_MEM_STATE_MIXED: u16 = 2;

/// `struct virtio_mem_req`: type, padding, address, number of blocks, padding.
pub const REQUEST_BYTES: usize = 24;

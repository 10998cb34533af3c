//! Constants of virtio 1.2, in its spelling.

/// Section 4.2.2: "virt", little-endian.
pub const MAGIC_VALUE: u32 = 0x7472_6976;
/// Section 4.2.2: not legacy.
pub const VERSION: u32 = 2;
/// Ours: "fair", little-endian.
pub const VENDOR_ID: u32 = 0x7269_6166;

/// Register offsets, section 4.2.2.
pub mod offset {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// InterruptStatus bit 0.
pub const INTERRUPT_USED_BUFFER: u32 = 1;
/// InterruptStatus bit 1.
pub const INTERRUPT_CONFIG_CHANGED: u32 = 2;

/// Device status bits, section 2.1.
pub mod status {
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const DEVICE_NEEDS_RESET: u32 = 64;
}

/// Section 6: descriptors with a table of their own.
pub const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
/// Section 6: used_event and avail_event.
pub const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
/// Section 6: not legacy.
pub const VIRTIO_F_VERSION_1: u64 = 1 << 32;

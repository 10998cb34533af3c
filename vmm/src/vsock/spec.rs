//! Constants of virtio 1.2, section 5.10 (socket device), in its spelling.

/// 5.10.1: device ID.
pub const VIRTIO_ID_VSOCK: u32 = 19;

/// 5.10.3: stream sockets are supported.
pub const VIRTIO_VSOCK_F_STREAM: u64 = 1 << 0;

/// 5.10.4: the well-known context ID of the host.
pub const VMADDR_CID_HOST: u64 = 2;

/// 5.10.6: size of `struct virtio_vsock_hdr`, bytes.
pub const HEADER_BYTES: usize = 44;

/// 5.10.6: a connection is asked for.
pub const VIRTIO_VSOCK_OP_REQUEST: u16 = 1;
/// 5.10.6: it is granted.
pub const VIRTIO_VSOCK_OP_RESPONSE: u16 = 2;
/// 5.10.6: it is refused or gone.
pub const VIRTIO_VSOCK_OP_RST: u16 = 3;
/// 5.10.6: one side sends, or receives, no more.
pub const VIRTIO_VSOCK_OP_SHUTDOWN: u16 = 4;
/// 5.10.6: payload.
pub const VIRTIO_VSOCK_OP_RW: u16 = 5;
/// 5.10.6: tells `buf_alloc` and `fwd_cnt`, as every packet does.
pub const VIRTIO_VSOCK_OP_CREDIT_UPDATE: u16 = 6;
/// 5.10.6: asks for a credit update.
pub const VIRTIO_VSOCK_OP_CREDIT_REQUEST: u16 = 7;

/// 5.10.6.4: the only socket type of this device.
pub const VIRTIO_VSOCK_TYPE_STREAM: u16 = 1;

/// 5.10.6.6: the sender of this flag receives no more.
pub const VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: u32 = 1 << 0;
/// 5.10.6.6: the sender of this flag sends no more.
pub const VIRTIO_VSOCK_SHUTDOWN_F_SEND: u32 = 1 << 1;

//! Constants of the network device in the spelling of virtio 1.2, section 5.1, and this one's limits.

use virtio_bindings::virtio_net as bits;

/// Section 5.1.
pub const VIRTIO_ID_NET: u32 = 1;

/// Section 5.1.3: what the driver leaves unfinished, the device finishes.
pub const HOST_OFFLOADS: u64 = 1 << bits::VIRTIO_NET_F_CSUM
    | 1 << bits::VIRTIO_NET_F_HOST_TSO4
    | 1 << bits::VIRTIO_NET_F_HOST_TSO6
    | 1 << bits::VIRTIO_NET_F_HOST_ECN;
/// Section 5.1.3: the driver takes frames without checksums.
pub const VIRTIO_NET_F_GUEST_CSUM: u64 = 1 << bits::VIRTIO_NET_F_GUEST_CSUM;
/// Several segments of TCP over IPv4 as one.
pub const VIRTIO_NET_F_GUEST_TSO4: u64 = 1 << bits::VIRTIO_NET_F_GUEST_TSO4;
/// The same over IPv6.
pub const VIRTIO_NET_F_GUEST_TSO6: u64 = 1 << bits::VIRTIO_NET_F_GUEST_TSO6;
/// With congestion notification.
pub const VIRTIO_NET_F_GUEST_ECN: u64 = 1 << bits::VIRTIO_NET_F_GUEST_ECN;
/// All of these.
pub const GUEST_OFFLOADS: u64 = VIRTIO_NET_F_GUEST_CSUM
    | VIRTIO_NET_F_GUEST_TSO4
    | VIRTIO_NET_F_GUEST_TSO6
    | VIRTIO_NET_F_GUEST_ECN;
/// A frame may lie in several buffers.
pub const VIRTIO_NET_F_MRG_RXBUF: u64 = 1 << bits::VIRTIO_NET_F_MRG_RXBUF;
/// The configuration says the address.
pub const VIRTIO_NET_F_MAC: u64 = 1 << bits::VIRTIO_NET_F_MAC;
/// It says the largest packet.
pub const VIRTIO_NET_F_MTU: u64 = 1 << bits::VIRTIO_NET_F_MTU;
/// It says whether the link is up.
pub const VIRTIO_NET_F_STATUS: u64 = 1 << bits::VIRTIO_NET_F_STATUS;
/// There is a control queue.
pub const VIRTIO_NET_F_CTRL_VQ: u64 = 1 << bits::VIRTIO_NET_F_CTRL_VQ;
/// There may be several pairs of queues.
pub const VIRTIO_NET_F_MQ: u64 = 1 << bits::VIRTIO_NET_F_MQ;

/// Class of a command, section 5.1.6.5.
pub const VIRTIO_NET_CTRL_MQ: u8 = 4;
/// Its only one here, section 5.1.6.5.6: a number of pairs follows.
pub const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: u8 = 0;
/// That command, bytes.
pub const COMMAND_BYTES: usize = 4;
/// An answer.
pub const VIRTIO_NET_OK: u8 = 0;
/// The other one.
pub const VIRTIO_NET_ERR: u8 = 1;

/// Configuration, section 5.1.4.
pub const VIRTIO_NET_S_LINK_UP: u16 = 1;

/// `struct virtio_net_hdr`, section 5.1.6.
pub const HEADER_BYTES: usize = 12;
/// Where its `num_buffers` is.
pub const NUM_BUFFERS_OFFSET: usize = 10;
/// Ethernet's own header.
pub const ETHERNET_BYTES: usize = 14;
/// The longest frame with its header, bytes: segments of 64 KiB as one, with room to spare.
pub const FRAME_BYTES: usize = 68 << 10;
/// Buffers of each queue.
pub const QUEUE_SIZE: u16 = 256;
/// Those of the control queue.
pub const CONTROL_QUEUE_SIZE: u16 = 16;

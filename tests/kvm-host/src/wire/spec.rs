//! Constants of the protocol between client and agent, and the deadlines both keep.

use std::time::Duration;

/// Virtio-serial ports of an emulated host: as many commands run at once.
pub const PORTS: usize = 8;
/// Name of port N as the guest sees it: this prefix and N.
pub const PORT_NAME_PREFIX: &str = "agent.";

/// Type (1 byte) and payload length (4 bytes, little endian).
pub const HEADER_BYTES: usize = 5;
/// Longest payload: room for the longest argument list and environment that Linux takes by default.
pub const PAYLOAD_MAX_BYTES: usize = 8 << 20;
/// Bytes of one stream that may be on their way before the receiver has passed some on.
pub const WINDOW_BYTES: usize = 64 << 10;
/// Most bytes of one stream in one frame.
pub const CHUNK_BYTES: usize = 16 << 10;

/// Start of the client's greeting; a nonce follows.
pub const HELLO: &[u8; 16] = b"\0\xf5on-kvm hello\x91\x02";
/// Start of the agent's answer; the same nonce follows.
pub const WELCOME: &[u8; 16] = b"\0\xf5on-kvm ready\x91\x02";
/// Length of the nonce that tells one connection's bytes from an earlier one's.
pub const NONCE_BYTES: usize = 16;

/// From the start of an emulated host to the agent's first answer; generous for a machine under load.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(90);
/// From the greeting to the answer of a host that is already up.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(20);
/// A client sends a ping this often.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A host that sent nothing for so long is taken for dead.
pub const SILENCE_DEADLINE: Duration = Duration::from_secs(30);

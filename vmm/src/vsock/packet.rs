//! Packets as they lie in descriptor chains: the header, and the payload behind it.
//!
//! No assumption on framing (section 2.7.4): header and payload may share descriptors or be spread over several.
//! Linux 6.12 sends payloads over 32 KiB as one descriptor for the header and several for the data, which the
//! virtio-vsock crate's parser refuses; hence this one.

use virtio_queue::DescriptorChain;
use vm_memory::ByteValued;

use crate::memory::{GuestMemory, Reader};

/// `struct virtio_vsock_hdr`, section 5.10.6: little-endian, as this host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Header {
    /// Context ID of the sender.
    pub src_cid: u64,
    /// Context ID of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Payload, bytes.
    pub len: u32,
    /// VIRTIO_VSOCK_TYPE_*.
    pub socket_type: u16,
    /// VIRTIO_VSOCK_OP_*.
    pub op: u16,
    /// Meaning depends on `op`.
    pub flags: u32,
    /// Receive buffer of the sender for this connection, bytes.
    pub buf_alloc: u32,
    /// Bytes the sender has taken out of that buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

#[expect(unsafe_code, reason = "the header is read and written as it is")]
// SAFETY: integers, and no padding between or behind them.
unsafe impl ByteValued for Header {}

impl Header {
    /// An answer to who sent this, without payload or credit.
    pub fn answer(&self, op: u16) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            socket_type: self.socket_type,
            op,
            ..Self::default()
        }
    }
}

/// A packet of the guest. The header is a copy: the guest cannot change it after it was checked.
pub struct Sent<'m> {
    /// The header.
    pub header: Header,
    /// As many bytes as it says.
    pub payload: Reader<'m>,
}

impl<'m> Sent<'m> {
    /// Reads the header of a TX chain, and finds its payload whole.
    ///
    /// # Errors
    /// What is wrong with the chain, for the log.
    pub fn parse(
        memory: &'m GuestMemory,
        chain: DescriptorChain<&'m GuestMemory>,
    ) -> Result<Self, &'static str> {
        let payload = chain.reader(memory);
        let mut payload: Reader<'m> = payload.map_err(|_| "chain outside of memory")?;
        let header = payload.read_obj::<Header>();
        let header = header.map_err(|_| "chain too short for a header")?;
        let rest = payload.split_at(header.len as usize);
        rest.map_err(|_| "packet longer than its chain")?;
        Ok(Self { header, payload })
    }
}

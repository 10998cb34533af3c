//! Packets as they lie in descriptor chains: the header, and the payload behind it.
//!
//! No assumption on framing (section 2.7.4): header and payload may share descriptors or be spread over several.
//! Linux 6.12 sends payloads over 32 KiB as one descriptor for the header and several for the data, which the
//! virtio-vsock crate's parser refuses; hence this one.

use std::io::{self, ErrorKind, Read, Write};

use virtio_queue::DescriptorChain;

use super::spec::HEADER_BYTES;
use crate::memory::{GuestMemory, Reader, Writer};

/// The most that is moved at once, bytes. A receive buffer of Linux is a page.
const CHUNK_BYTES: usize = 4096;

/// `struct virtio_vsock_hdr`, section 5.10.6, in the host's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl Header {
    /// Decodes.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            socket_type: u16::from_le_bytes(field(bytes, 28)),
            op: u16::from_le_bytes(field(bytes, 30)),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// Encodes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.socket_type.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// A packet of the guest. The header is a copy: the guest cannot change it after it was checked.
pub struct Sent<'m> {
    /// The header.
    pub header: Header,
    payload: Reader<'m>,
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
        let mut payload = chain
            .reader(memory)
            .map_err(|_| "chain outside of memory")?;
        let mut bytes = [0; HEADER_BYTES];
        let read = payload.read_exact(&mut bytes);
        read.map_err(|_| "chain too short for a header")?;
        let header = Header::from_bytes(&bytes);
        if payload.available_bytes() < usize::try_from(header.len).unwrap_or(usize::MAX) {
            return Err("packet longer than its chain");
        }
        Ok(Self { header, payload })
    }

    /// Hands out the payload in pieces copied out of guest memory, `header.len` bytes together.
    pub fn for_each_chunk(&mut self, mut take: impl FnMut(&[u8])) {
        let mut chunk = [0; CHUNK_BYTES];
        let mut payload = (&mut self.payload).take(u64::from(self.header.len));
        while let Ok(bytes @ 1..) = payload.read(&mut chunk) {
            take(&chunk[..bytes]);
        }
    }
}

/// A buffer of the guest for one packet.
pub struct Room<'m> {
    header: Writer<'m>,
    payload: Writer<'m>,
}

impl<'m> Room<'m> {
    /// Finds the places of header and payload in an RX chain.
    ///
    /// # Errors
    /// What is wrong with the chain, for the log.
    pub fn parse(
        memory: &'m GuestMemory,
        chain: DescriptorChain<&'m GuestMemory>,
    ) -> Result<Self, &'static str> {
        let mut header = chain
            .writer(memory)
            .map_err(|_| "buffer outside of memory")?;
        let payload = header.split_at(HEADER_BYTES);
        let payload = payload.map_err(|_| "buffer too short for a header")?;
        Ok(Self { header, payload })
    }

    /// Fills the payload by one read, at most `limit` bytes; how many came, none at the end of the stream, and whether as many as
    /// could.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn fill(&mut self, mut stream: impl Read, limit: u32) -> io::Result<(u32, bool)> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut chunk = [0; CHUNK_BYTES];
        let room = self.payload.available_bytes().min(limit).min(CHUNK_BYTES);
        let bytes = loop {
            match stream.read(&mut chunk[..room]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.payload.write_all(&chunk[..bytes])?;
        let count = u32::try_from(bytes).map_err(io::Error::other)?;
        Ok((count, bytes == room))
    }

    /// Whether no payload fits at all.
    pub fn is_header_only(&self) -> bool {
        self.payload.available_bytes() == 0
    }

    /// Writes the header; the length of the used element comes back, in bytes.
    pub fn put(&mut self, header: Header) -> u32 {
        // There is room for it, and the memory is the guest's own.
        let _ = self.header.write_all(&header.to_bytes());
        u32::try_from(HEADER_BYTES).map_or(header.len, |bytes| header.len.saturating_add(bytes))
    }
}

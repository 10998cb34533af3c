//! Packets as they lie in descriptor chains: the header, and the payload as slices of guest memory.
//!
//! No assumption on framing (section 2.7.4): header and payload may share descriptors or be spread over several.
//! Linux 6.12 sends payloads over 32 KiB as one descriptor for the header and several for the data, which the
//! virtio-vsock crate's parser refuses; hence this one.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;

use virtio_queue::DescriptorChain;
use vm_memory::{
    GuestMemory as _, ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile,
};

use super::spec::HEADER_BYTES;
use crate::memory::{Bitmap, GuestMemory};

/// The most descriptors a packet may be spread over. Linux uses up to 18.
const MAX_SEGMENTS: usize = 64;

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
    /// The payload, `header.len` bytes in guest memory.
    pub payload: Segments<'m>,
}

impl<'m> Sent<'m> {
    /// Reads the header of a TX chain and finds its payload.
    ///
    /// # Errors
    /// What is wrong with the chain, for the log.
    pub fn parse(
        memory: &'m GuestMemory,
        chain: DescriptorChain<&'m GuestMemory>,
    ) -> Result<Self, &'static str> {
        let mut segments = Segments::gather(memory, chain, false)?;
        let header = segments
            .split_header()
            .ok_or("chain too short for a header")?;
        let mut bytes = [0; HEADER_BYTES];
        header.copy_to(&mut bytes);
        let header = Header::from_bytes(&bytes);
        let len = usize::try_from(header.len).map_err(|_| "packet too long")?;
        let payload = segments
            .split_to(len)
            .ok_or("packet longer than its chain")?;
        Ok(Self { header, payload })
    }
}

/// A buffer of the guest for one packet.
pub struct Room<'m> {
    header: Segments<'m>,
    payload: Segments<'m>,
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
        let mut payload = Segments::gather(memory, chain, true)?;
        let header = payload
            .split_header()
            .ok_or("buffer too short for a header")?;
        Ok(Self { header, payload })
    }

    /// Fills the payload from `stream`, at most `limit` bytes. Fewer than `min(limit, room)` came: there are no more
    /// for now.
    ///
    /// # Errors
    /// Those of read(2), when nothing was read before.
    pub fn fill(&self, stream: &UnixStream, limit: u32) -> io::Result<Filled> {
        let limit = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(self.payload.len());
        let mut bytes = 0;
        for segment in &self.payload.0 {
            let Ok(mut part) = segment.subslice(0, segment.len().min(limit - bytes)) else {
                break;
            };
            if part.is_empty() {
                break;
            }
            match retry(|| (&mut &*stream).read_volatile(&mut part)) {
                Ok(0) => {
                    return Ok(Filled {
                        bytes,
                        ended: true,
                        more: false,
                    });
                }
                Ok(read) => {
                    bytes += read;
                    if read < part.len() {
                        return Ok(Filled {
                            bytes,
                            ended: false,
                            more: false,
                        });
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Filled {
                        bytes,
                        ended: false,
                        more: false,
                    });
                }
                Err(error) if bytes == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Filled {
            bytes,
            ended: false,
            more: true,
        })
    }

    /// Whether a payload fits at all.
    pub fn is_header_only(&self) -> bool {
        self.payload.len() == 0
    }

    /// Writes the header; the length of the used element comes back, in bytes.
    pub fn put(&self, header: Header) -> u32 {
        self.header.copy_from(&header.to_bytes());
        u32::try_from(HEADER_BYTES).map_or(header.len, |bytes| header.len.saturating_add(bytes))
    }
}

/// What [`Room::fill`] read.
pub struct Filled {
    /// How many bytes.
    pub bytes: usize,
    /// The stream has ended after them.
    pub ended: bool,
    /// There may be more.
    pub more: bool,
}

/// Guest memory in pieces, in order; none is empty.
pub struct Segments<'m>(Vec<VolatileSlice<'m, Bitmap>>);

impl<'m> Segments<'m> {
    fn gather(
        memory: &'m GuestMemory,
        chain: DescriptorChain<&'m GuestMemory>,
        writable: bool,
    ) -> Result<Self, &'static str> {
        let mut segments = Vec::new();
        for (at, descriptor) in chain.enumerate() {
            if at == MAX_SEGMENTS {
                return Err("chain of too many descriptors");
            }
            if descriptor.is_write_only() != writable {
                return Err("descriptor of the wrong direction");
            }
            let len = usize::try_from(descriptor.len()).map_err(|_| "descriptor too long")?;
            if len == 0 {
                continue;
            }
            let slice = memory.get_slice(descriptor.addr(), len);
            segments.push(slice.map_err(|_| "descriptor outside of memory")?);
        }
        Ok(Self(segments))
    }

    fn split_header(&mut self) -> Option<Self> {
        self.split_to(HEADER_BYTES)
    }

    /// Takes the first `bytes` off; `None` when there are fewer.
    fn split_to(&mut self, bytes: usize) -> Option<Self> {
        let mut front = Vec::new();
        let mut left = bytes;
        let mut whole = 0;
        for segment in &mut self.0 {
            if left == 0 {
                break;
            }
            let taken = left.min(segment.len());
            front.push(segment.subslice(0, taken).ok()?);
            left -= taken;
            if taken == segment.len() {
                whole += 1;
            } else {
                *segment = segment.offset(taken).ok()?;
            }
        }
        if left > 0 {
            return None;
        }
        self.0.drain(..whole);
        Some(Self(front))
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.0
            .iter()
            .fold(0, |sum, segment| sum.saturating_add(segment.len()))
    }

    fn copy_to(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        for segment in &self.0 {
            let copied = segment.copy_to(rest);
            rest = &mut rest[copied..];
        }
    }

    fn copy_from(&self, bytes: &[u8]) {
        let mut rest = bytes;
        for segment in &self.0 {
            let (part, after) = rest.split_at(segment.len().min(rest.len()));
            segment.copy_from(part);
            rest = after;
        }
    }

    /// Writes to `stream` what it takes, and drops that from the front.
    ///
    /// # Errors
    /// Those of write(2), but not `WouldBlock`.
    pub fn write_to(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let mut bytes = 0;
        while let Some(segment) = self.0.first() {
            let written = match retry(|| (&mut &*stream).write_volatile(segment)) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            bytes += written;
            if written < segment.len() {
                self.split_to(written);
                break;
            }
            self.0.remove(0);
        }
        Ok(bytes)
    }

    /// Hands out the bytes in chunks copied out of guest memory.
    pub fn for_each_chunk(&self, mut take: impl FnMut(&[u8])) {
        let mut chunk = [0; 4096];
        for segment in &self.0 {
            let mut rest = segment.clone();
            while !rest.is_empty() {
                let copied = rest.copy_to(&mut chunk);
                take(&chunk[..copied]);
                let Ok(after) = rest.offset(copied) else {
                    break;
                };
                rest = after;
            }
        }
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, VolatileMemoryError>) -> io::Result<usize> {
    loop {
        match call() {
            Ok(bytes) => return Ok(bytes),
            Err(VolatileMemoryError::IOError(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(VolatileMemoryError::IOError(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

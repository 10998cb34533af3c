//! A block request, parsed whole before anything of it is done. All of it is the guest's input.
//!
//! Virtio 1.2, section 5.2.6.

use std::io::{self, ErrorKind};

use virtio_queue::DescriptorChain;
use vm_memory::{Address, GuestAddress};

use super::spec::*;
use crate::memory::{GuestMemory, Reader, Writer};

/// What the driver wants done.
pub enum Request<'a> {
    /// Fill `to` from byte `offset` on.
    Read {
        /// Where on the disk, bytes.
        offset: u64,
        /// Where to.
        to: Writer<'a>,
    },
    /// Write `from` to byte `offset` on.
    Write {
        /// Where on the disk, bytes.
        offset: u64,
        /// Where from.
        from: Reader<'a>,
    },
    /// Make all completed writes durable.
    Flush,
    /// Make these zeros: a discard, too, is one that frees.
    Zero(Vec<Range>),
    /// Fill with the device id string.
    GetId(Writer<'a>),
}

/// Bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
    /// Whether the space may be freed.
    pub unmap: bool,
}

/// A type or flag that this device does not know. All that is malformed or out of range is another error.
pub fn unsupported() -> io::Error {
    io::Error::from_raw_os_error(libc::EOPNOTSUPP)
}

/// The address of the status byte, the last byte that the device may write; none in a chain that is broken or has none,
/// which only a reset can mend.
pub fn status_address(chain: DescriptorChain<&GuestMemory>) -> Option<GuestAddress> {
    let mut last = None;
    for descriptor in chain {
        last = Some(descriptor);
    }
    // A chain that ends on a descriptor with a successor was cut: a loop, an index or table out of range, too long.
    let last = last.filter(|last| last.is_write_only() && !last.has_next())?;
    last.addr()
        .checked_add(u64::from(last.len().checked_sub(1)?))
}

/// Reads a request from its descriptors, in the byte order of this host, which is theirs.
///
/// # Errors
/// For whatever the specification does not allow.
pub fn parse<'a>(
    memory: &'a GuestMemory,
    chain: DescriptorChain<&'a GuestMemory>,
) -> io::Result<Request<'a>> {
    if chain.clone().count() > SEG_MAX as usize + 2 || !readable_come_first(chain.clone()) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let from = chain.clone().reader(memory);
    let mut from: Reader<'a> = from.map_err(io::Error::other)?;
    let to = chain.writer(memory);
    let mut to: Writer<'a> = to.map_err(io::Error::other)?;
    let [kind, _reserved]: [u32; 2] = from.read_obj()?;
    let sector = from.read_obj()?;
    // The status byte is not part of the data.
    let data_bytes = to.available_bytes().checked_sub(1);
    let status = to.split_at(data_bytes.ok_or(ErrorKind::InvalidInput)?);
    status.map_err(io::Error::other)?;
    match kind {
        VIRTIO_BLK_T_IN => {
            let offset = byte_offset(sector)?;
            Ok(Request::Read { offset, to })
        }
        VIRTIO_BLK_T_OUT => {
            let offset = byte_offset(sector)?;
            Ok(Request::Write { offset, from })
        }
        VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => Ok(Request::Zero(ranges(kind, from)?)),
        VIRTIO_BLK_T_GET_ID => Ok(Request::GetId(to)),
        _ => Err(unsupported()),
    }
}

/// Section 2.7.4.2: a driver puts what the device reads before what it writes.
fn readable_come_first(chain: DescriptorChain<&GuestMemory>) -> bool {
    let mut written = false;
    chain.into_iter().all(|descriptor| {
        written |= descriptor.is_write_only();
        descriptor.is_write_only() == written
    })
}

fn byte_offset(sector: u64) -> io::Result<u64> {
    let offset = sector.checked_mul(SECTOR_BYTES);
    Ok(offset.ok_or(ErrorKind::InvalidInput)?)
}

/// Segments of a discard or write-zeroes request.
fn ranges(kind: u32, mut from: Reader<'_>) -> io::Result<Vec<Range>> {
    let bytes = from.available_bytes();
    let count = bytes / SEGMENT_BYTES;
    if !bytes.is_multiple_of(SEGMENT_BYTES) || count == 0 || count > MAX_DISCARD_SEGMENTS as usize {
        return Err(ErrorKind::InvalidInput.into());
    }
    (0..count).map(|_| range(kind, &mut from)).collect()
}

fn range(kind: u32, from: &mut Reader<'_>) -> io::Result<Range> {
    let sector = from.read_obj()?;
    let [sectors, flags]: [u32; 2] = from.read_obj()?;
    let is_discard = kind == VIRTIO_BLK_T_DISCARD;
    if flags != 0 && (is_discard || flags != VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP) {
        return Err(unsupported());
    }
    if sectors > MAX_DISCARD_SECTORS {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(Range {
        offset: byte_offset(sector)?,
        bytes: u64::from(sectors) * SECTOR_BYTES,
        unmap: is_discard || flags != 0,
    })
}

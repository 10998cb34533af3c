//! A block request, parsed whole before anything of it is done. All of it is the guest's input.
//!
//! Virtio 1.2, section 5.2.6.

use std::io::Read;

use virtio_queue::DescriptorChain;
use vm_memory::{Address, GuestAddress};

use super::spec::{
    HEADER_BYTES, MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS, SECTOR_BYTES, SEG_MAX, SEGMENT_BYTES,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use crate::memory::{GuestMemory, Reader, Writer};

/// What the driver wants done.
pub enum Request<'a> {
    /// Fill `to` from byte `offset` on.
    Read {
        /// Where on the disk, bytes.
        offset: u64,
        /// Whole sectors.
        to: Writer<'a>,
    },
    /// Write `from` to byte `offset` on.
    Write {
        /// Where on the disk, bytes.
        offset: u64,
        /// Whole sectors.
        from: Reader<'a>,
    },
    /// Make all completed writes durable.
    Flush,
    /// Forget these.
    Discard(Vec<Range>),
    /// Make these zeros.
    WriteZeroes(Vec<Range>),
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

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Malformed or out of range.
    IoError,
    /// A type or flag that this device does not know.
    Unsupported,
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

/// Reads a request from its descriptors.
///
/// # Errors
/// A [`Refusal`] for whatever the specification does not allow.
pub fn parse<'a>(
    memory: &'a GuestMemory,
    chain: DescriptorChain<&'a GuestMemory>,
) -> Result<Request<'a>, Refusal> {
    if chain.clone().count() > SEG_MAX as usize + 2 || !readable_come_first(chain.clone()) {
        return Err(Refusal::IoError);
    }
    let mut from: Reader<'a> = chain.clone().reader(memory).map_err(|_| Refusal::IoError)?;
    let mut to: Writer<'a> = chain.writer(memory).map_err(|_| Refusal::IoError)?;
    let header: [u8; HEADER_BYTES] = read(&mut from)?;
    let data_bytes = to
        .available_bytes()
        .checked_sub(1)
        .ok_or(Refusal::IoError)?;
    // The status byte is not part of the data.
    to.split_at(data_bytes).map_err(|_| Refusal::IoError)?;
    let offset = || {
        u64_at(&header, 8)
            .checked_mul(SECTOR_BYTES)
            .ok_or(Refusal::IoError)
    };
    match u32_at(&header, 0) {
        VIRTIO_BLK_T_IN => Ok(Request::Read {
            offset: offset()?,
            to: whole_sectors(data_bytes, to)?,
        }),
        VIRTIO_BLK_T_OUT => Ok(Request::Write {
            offset: offset()?,
            from: whole_sectors(from.available_bytes(), from)?,
        }),
        VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        VIRTIO_BLK_T_DISCARD => Ok(Request::Discard(ranges(&mut from, 0)?)),
        VIRTIO_BLK_T_WRITE_ZEROES => Ok(Request::WriteZeroes(ranges(
            &mut from,
            VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        )?)),
        VIRTIO_BLK_T_GET_ID => Ok(Request::GetId(to)),
        _ => Err(Refusal::Unsupported),
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

fn whole_sectors<T>(bytes: usize, data: T) -> Result<T, Refusal> {
    if (bytes as u64).is_multiple_of(SECTOR_BYTES) {
        Ok(data)
    } else {
        Err(Refusal::IoError)
    }
}

/// Segments of a discard or write-zeroes request that may have `allowed_flags`.
fn ranges(from: &mut Reader<'_>, allowed_flags: u32) -> Result<Vec<Range>, Refusal> {
    let count = from.available_bytes() / SEGMENT_BYTES;
    if !from.available_bytes().is_multiple_of(SEGMENT_BYTES)
        || count == 0
        || count > MAX_DISCARD_SEGMENTS as usize
    {
        return Err(Refusal::IoError);
    }
    (0..count)
        .map(|_| range(&read(from)?, allowed_flags))
        .collect()
}

fn range(segment: &[u8; SEGMENT_BYTES], allowed_flags: u32) -> Result<Range, Refusal> {
    let (sectors, flags) = (u32_at(segment, 8), u32_at(segment, 12));
    if flags & !allowed_flags != 0 {
        return Err(Refusal::Unsupported);
    }
    if sectors > MAX_DISCARD_SECTORS {
        return Err(Refusal::IoError);
    }
    Ok(Range {
        offset: u64_at(segment, 0)
            .checked_mul(SECTOR_BYTES)
            .ok_or(Refusal::IoError)?,
        bytes: u64::from(sectors) * SECTOR_BYTES,
        unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
    })
}

fn read(from: &mut Reader<'_>) -> Result<[u8; 16], Refusal> {
    let mut bytes = [0; 16];
    from.read_exact(&mut bytes).map_err(|_| Refusal::IoError)?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    u32::try_from(u64_at(bytes, at.min(8)) >> (8 * (at - at.min(8))) & u64::from(u32::MAX))
        .unwrap_or(0)
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    bytes
        .iter()
        .skip(at)
        .take(8)
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

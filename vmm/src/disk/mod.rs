//! The block device: requests from one queue, carried out one after the other on the device's own thread.
//!
//! Virtio 1.2, section 5.2. A request's data pass through one buffer of [`BUFFER_BYTES`], so that what a request may
//! name, up to 4 GiB and the same page many times over, costs no memory of the host.

mod extents;
mod request;
mod spec;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::{DescriptorChain, Queue};
use vm_memory::Bytes;

pub use self::extents::{Extent, Extents};
use self::request::{Request, parse, status_address, unsupported};
use self::spec::*;
use crate::device::{Activation, Device, Stop};
use crate::memory::{GuestMemory, Reader, Writer};
use crate::mmio::spec::VIRTIO_F_INDIRECT_DESC;
use crate::requests::{self, Told};

/// Size of the buffer between guest memory and files.
const BUFFER_BYTES: usize = 128 << 10;

/// The most one request may move, bytes: many times what Linux asks for, and soon done when the machine is to stop.
const MAX_TRANSFER_BYTES: usize = 32 << 20;

/// A disk.
pub struct Disk {
    extents: Extents,
    read_only: bool,
    id: [u8; VIRTIO_BLK_ID_BYTES],
    host_full: Arc<AtomicBool>,
    buffer: Vec<u8>,
}

impl Disk {
    /// A disk that cannot be written.
    pub fn read_only(extents: Extents, id: &str) -> Self {
        Self::new(extents, true, id)
    }

    /// A disk that can be written, discarded and zeroed wherever an extent lies.
    pub fn writable(extents: Extents, id: &str) -> Self {
        Self::new(extents, false, id)
    }

    fn new(extents: Extents, read_only: bool, id: &str) -> Self {
        let mut bytes = [0; VIRTIO_BLK_ID_BYTES];
        bytes
            .iter_mut()
            .zip(id.bytes())
            .for_each(|(to, from)| *to = from);
        Self {
            extents,
            read_only,
            id: bytes,
            host_full: Arc::default(),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// True once the host's file system had no room for a write; the guest has seen an I/O error.
    pub fn host_full(&self) -> Arc<AtomicBool> {
        self.host_full.clone()
    }

    /// Returns how many bytes were written to the guest.
    fn execute(&mut self, request: Request<'_>) -> io::Result<usize> {
        match request {
            Request::Read { offset, to } => self.read(offset, to),
            Request::GetId(mut to) => {
                let room = to.available_bytes().min(self.id.len());
                to.write_all(&self.id[..room])?;
                Ok(room)
            }
            Request::Flush if self.read_only => Ok(0),
            Request::Flush => self.extents.flush().map(|()| 0),
            // The guest was told of none of these features.
            Request::Zero(_) if self.read_only => Err(unsupported()),
            Request::Write { .. } if self.read_only => Err(ErrorKind::InvalidInput.into()),
            Request::Write { offset, from } => self.write(offset, from).map(|()| 0),
            Request::Zero(ranges) => {
                for range in ranges {
                    self.extents.check(range.offset, range.bytes)?;
                    self.extents.zero(range.offset, range.bytes, range.unmap)?;
                }
                Ok(0)
            }
        }
    }

    fn read(&mut self, mut offset: u64, mut to: Writer<'_>) -> io::Result<usize> {
        self.transferable(offset, to.available_bytes())?;
        while to.available_bytes() > 0 {
            let bytes = to.available_bytes().min(BUFFER_BYTES);
            let buffer = &mut self.buffer[..bytes];
            self.extents.read_at(offset, buffer)?;
            to.write_all(buffer)?;
            offset += bytes as u64;
        }
        Ok(to.bytes_written())
    }

    fn write(&mut self, mut offset: u64, mut from: Reader<'_>) -> io::Result<()> {
        self.transferable(offset, from.available_bytes())?;
        while from.available_bytes() > 0 {
            let bytes = from.available_bytes().min(BUFFER_BYTES);
            let buffer = &mut self.buffer[..bytes];
            from.read_exact(buffer)?;
            self.extents.write_at(offset, buffer)?;
            offset += bytes as u64;
        }
        Ok(())
    }

    /// Whether so many bytes are whole sectors of the disk, and not too many.
    fn transferable(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let whole = (bytes as u64).is_multiple_of(SECTOR_BYTES);
        if !whole || bytes > MAX_TRANSFER_BYTES {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.extents.check(offset, bytes as u64)
    }

    /// What the guest learns of `error`; the owner learns of a full host besides.
    fn refusal(&self, error: &io::Error) -> u8 {
        let errno = error.raw_os_error();
        let full = matches!(errno, Some(libc::ENOSPC | libc::EDQUOT));
        if full && !self.host_full.swap(true, Ordering::Relaxed) {
            tracing::warn!("the host's disk is full: a write of the guest failed");
        }
        match errno {
            Some(libc::EOPNOTSUPP) => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        }
    }

    /// Answers one request: how many bytes were written to the guest; none when it has no place for a status.
    fn answer(
        &mut self,
        memory: &GuestMemory,
        chain: DescriptorChain<&GuestMemory>,
    ) -> Option<u32> {
        let status_at = status_address(chain.clone())?;
        let result = parse(memory, chain).and_then(|request| self.execute(request));
        let (written, status) = match result {
            Ok(written) => (written, VIRTIO_BLK_S_OK),
            Err(error) => (0, self.refusal(&error)),
        };
        memory.write_obj(status, status_at).ok()?;
        u32::try_from(written + 1).ok()
    }
}

impl Device for Disk {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let access = match self.read_only {
            true => 1 << VIRTIO_BLK_F_RO,
            false => {
                1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
            }
        };
        1 << VIRTIO_BLK_F_SEG_MAX | VIRTIO_F_INDIRECT_DESC | access
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    /// `struct virtio_blk_config`, section 5.2.4.
    fn config(&self) -> Vec<u8> {
        let mut config = Vec::new();
        config.extend((self.extents.capacity_bytes() / SECTOR_BYTES).to_le_bytes());
        config.extend(0u32.to_le_bytes()); // size_max
        config.extend(SEG_MAX.to_le_bytes());
        config.extend([0; 20]); // geometry, blk_size, topology, writeback, unused0, num_queues
        config.extend(MAX_DISCARD_SECTORS.to_le_bytes());
        config.extend(MAX_DISCARD_SEGMENTS.to_le_bytes());
        config.extend(DISCARD_SECTOR_ALIGNMENT.to_le_bytes());
        config.extend(MAX_DISCARD_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        config.extend(MAX_DISCARD_SEGMENTS.to_le_bytes()); // max_write_zeroes_seg
        config.extend([1, 0, 0, 0]); // write_zeroes_may_unmap, unused1
        config
    }

    fn run(
        mut self: Box<Self>,
        activation: Activation,
        stop: &Stop,
    ) -> (Box<dyn Device>, Vec<Queue>) {
        let answer =
            |memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>| self.answer(memory, chain);
        let queues = requests::serve("disk", Told::Together, activation, stop, answer);
        (self, queues)
    }
}

#[cfg(test)]
mod tests;

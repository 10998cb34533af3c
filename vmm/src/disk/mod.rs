//! The block device: requests from one queue, carried out one after the other on the device's own thread.
//!
//! Virtio 1.2, section 5.2. A request's data pass through one buffer of [`BUFFER_BYTES`], so that what a request may
//! name, up to 4 GiB and the same page many times over, costs no memory of the host.

mod extents;
mod request;
mod spec;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::{DescriptorChain, Queue};
use vm_memory::Bytes;

pub use self::extents::{Extent, Extents};
use self::request::{Range, Refusal, Request, parse, status_address};
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

    fn execute(&mut self, request: Request<'_>) -> Result<u32, Refusal> {
        match request {
            Request::Read { offset, to } => self.read(offset, to),
            Request::GetId(mut to) => {
                let room = to.available_bytes().min(self.id.len());
                to.write_all(&self.id[..room])
                    .map_err(|_| Refusal::IoError)?;
                u32::try_from(room).map_err(|_| Refusal::IoError)
            }
            Request::Flush => {
                let flushed = if self.read_only {
                    Ok(())
                } else {
                    self.extents.flush()
                };
                self.note(flushed).map(|()| 0)
            }
            // The guest was told of none of these features.
            Request::Discard(_) | Request::WriteZeroes(_) if self.read_only => {
                Err(Refusal::Unsupported)
            }
            Request::Write { .. } if self.read_only => Err(Refusal::IoError),
            Request::Write { offset, from } => self.write(offset, from).map(|()| 0),
            Request::Discard(ranges) => ranges
                .into_iter()
                .try_for_each(|range| {
                    self.zero(Range {
                        unmap: true,
                        ..range
                    })
                })
                .map(|()| 0),
            Request::WriteZeroes(ranges) => ranges
                .into_iter()
                .try_for_each(|range| self.zero(range))
                .map(|()| 0),
        }
    }

    /// Returns how many bytes were written to the guest.
    fn read(&mut self, mut offset: u64, mut to: Writer<'_>) -> Result<u32, Refusal> {
        self.transferable(offset, to.available_bytes())?;
        while to.available_bytes() > 0 {
            let bytes = to.available_bytes().min(BUFFER_BYTES);
            let buffer = &mut self.buffer[..bytes];
            self.extents
                .read_at(offset, buffer)
                .map_err(|error| refuse(&error))?;
            to.write_all(buffer).map_err(|error| refuse(&error))?;
            offset += bytes as u64;
        }
        u32::try_from(to.bytes_written()).map_err(|_| Refusal::IoError)
    }

    fn write(&mut self, mut offset: u64, mut from: Reader<'_>) -> Result<(), Refusal> {
        self.transferable(offset, from.available_bytes())?;
        while from.available_bytes() > 0 {
            let bytes = from.available_bytes().min(BUFFER_BYTES);
            from.read_exact(&mut self.buffer[..bytes])
                .map_err(|error| refuse(&error))?;
            let written = self.extents.write_at(offset, &self.buffer[..bytes]);
            self.note(written)?;
            offset += bytes as u64;
        }
        Ok(())
    }

    fn zero(
        &self,
        Range {
            offset,
            bytes,
            unmap,
        }: Range,
    ) -> Result<(), Refusal> {
        self.in_range(offset, bytes)?;
        self.note(self.extents.zero(offset, bytes, unmap))
    }

    fn transferable(&self, offset: u64, bytes: usize) -> Result<(), Refusal> {
        if bytes > MAX_TRANSFER_BYTES {
            return Err(Refusal::IoError);
        }
        self.in_range(offset, bytes as u64)
    }

    fn in_range(&self, offset: u64, bytes: u64) -> Result<(), Refusal> {
        if self.extents.contain(offset, bytes) {
            Ok(())
        } else {
            Err(Refusal::IoError)
        }
    }

    /// What the guest learns of `result`; the owner learns of a full host besides.
    fn note(&self, result: io::Result<()>) -> Result<(), Refusal> {
        result.map_err(|error| {
            let full = [libc::ENOSPC, libc::EDQUOT]
                .map(Some)
                .contains(&error.raw_os_error());
            if full && !self.host_full.swap(true, Ordering::Relaxed) {
                tracing::warn!("the host's disk is full: a write of the guest failed");
            }
            refuse(&error)
        })
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
            Err(Refusal::IoError) => (0, VIRTIO_BLK_S_IOERR),
            Err(Refusal::Unsupported) => (0, VIRTIO_BLK_S_UNSUPP),
        };
        memory.write_obj(status, status_at).ok()?;
        Some(written.saturating_add(1))
    }
}

fn refuse(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Refusal::Unsupported,
        _ => Refusal::IoError,
    }
}

impl Device for Disk {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let access = match self.read_only {
            true => VIRTIO_BLK_F_RO,
            false => VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES,
        };
        VIRTIO_BLK_F_SEG_MAX | VIRTIO_F_INDIRECT_DESC | access
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

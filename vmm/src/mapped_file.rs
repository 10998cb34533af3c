//! A file on its way into guest memory. Its whole pages are not read but mapped in their place, private and writable, and
//! faulted in at once: the host's kernel copies each page as it is, where a read would first clear the page that it
//! copies to. The guest's copy is its own: the file may be written or removed, but, like a running program's, not be cut
//! short, which would take the pages away.
//!
//! Left to the guest's first touch, pages would be copied only if it writes them. Measured, that saves half of the set-up
//! and costs nearly twice as much in the kernel's start: KVM brings in one by one what it may not yet write, and what is
//! then written once more.
//!
//! Used by the boot recipe, before the guest runs. Nothing here parses the file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::layout::PAGE_BYTES;

/// A file that is mapped into the guest memory it is read to.
pub struct MappedFile<'a>(pub &'a mut File);

impl Read for MappedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for MappedFile<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl ReadVolatile for MappedFile<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        memory: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mapped = self
            .map_pages(memory)
            .map_err(VolatileMemoryError::IOError)?;
        let mut rest = memory.offset(mapped)?;
        if rest.is_empty() {
            return Ok(mapped);
        }
        Ok(mapped + self.0.read_volatile(&mut rest)?)
    }
}

impl MappedFile<'_> {
    /// Maps the whole pages that come next, and passes over them; returns their bytes.
    fn map_pages<B: BitmapSlice>(&mut self, memory: &VolatileSlice<B>) -> io::Result<usize> {
        let position = self.0.stream_position()?;
        let bytes = self.mappable(position, memory)?;
        if bytes > 0 {
            self.map(position, memory, bytes)?;
            memory.bitmap().mark_dirty(0, bytes);
            self.0.seek(SeekFrom::Start(position + bytes as u64))?;
        }
        Ok(bytes)
    }

    /// How much of `memory` the file's whole pages from `position` on can take the place of, bytes.
    fn mappable<B: BitmapSlice>(
        &self,
        position: u64,
        memory: &VolatileSlice<B>,
    ) -> io::Result<usize> {
        let address = memory.ptr_guard_mut().as_ptr() as u64;
        if !position.is_multiple_of(PAGE_BYTES) || !address.is_multiple_of(PAGE_BYTES) {
            return Ok(0);
        }
        let left = self.0.metadata()?.len().saturating_sub(position);
        let bytes = left.min(memory.len() as u64);
        usize::try_from(bytes - bytes % PAGE_BYTES).map_err(io::Error::other)
    }

    #[expect(unsafe_code, reason = "guest memory is replaced by a mapping")]
    fn map<B: BitmapSlice>(
        &self,
        position: u64,
        memory: &VolatileSlice<B>,
        bytes: usize,
    ) -> io::Result<()> {
        assert!(bytes <= memory.len());
        let position = libc::off_t::try_from(position).map_err(io::Error::other)?;
        // SAFETY: the range lies in `memory`, which is a mapping of ours, and starts and ends at a page. Nothing in this
        // process has references into guest memory, only volatile accesses.
        let mapped = unsafe {
            libc::mmap(
                memory.ptr_guard_mut().as_ptr().cast(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                self.0.as_raw_fd(),
                position,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made.
        if unsafe { libc::madvise(mapped, bytes, libc::MADV_POPULATE_WRITE) } != 0 {
            let error = io::Error::last_os_error();
            // Before Linux 5.14 pages come when they are touched.
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory;

    /// Bytes that differ from page to page.
    fn content(bytes: u32) -> Vec<u8> {
        (0..bytes)
            .map(|at| (at / 4096 * 7 + at).to_le_bytes()[0])
            .collect()
    }

    fn read_at(position: u64, bytes: usize, address: u64) -> (Vec<u8>, Vec<u8>) {
        let content = content(40_000);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        file.seek(SeekFrom::Start(position)).unwrap();
        let memory = memory::map(2).unwrap();
        memory
            .read_exact_volatile_from(GuestAddress(address), &mut MappedFile(&mut file), bytes)
            .unwrap();
        // The guest's copy is its own.
        file.rewind().unwrap();
        file.write_all(&[0xaa; 40_000]).unwrap();
        let mut copy = vec![0; bytes + 1];
        memory.read_slice(&mut copy, GuestAddress(address)).unwrap();
        let from = usize::try_from(position).unwrap();
        let mut expected = content[from..from + bytes].to_vec();
        expected.push(0);
        (copy, expected)
    }

    #[test]
    fn read_whole_pages_and_a_rest_gives_the_files_bytes_and_no_more() {
        let (copy, expected) = read_at(4096, 3 * 4096 + 5, 0x10_0000);
        assert_eq!(copy, expected);
    }

    #[test]
    fn read_to_the_files_end_gives_its_last_bytes() {
        let (copy, expected) = read_at(8192, 40_000 - 8192, 0x1000);
        assert_eq!(copy, expected);
    }

    #[test]
    fn read_off_a_pages_start_gives_the_files_bytes() {
        for (position, address) in [(120, 0x10_0000), (4096, 0x10_0010)] {
            let (copy, expected) = read_at(position, 9000, address);
            assert_eq!(copy, expected);
        }
    }

    #[test]
    fn read_beyond_the_files_end_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content(5000)).unwrap();
        file.rewind().unwrap();
        let memory = memory::map(2).unwrap();
        let read =
            memory.read_exact_volatile_from(GuestAddress(0), &mut MappedFile(&mut file), 8192);
        assert!(read.is_err());
    }
}

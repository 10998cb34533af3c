//! A file on its way into guest memory. Its whole pages are not read but mapped in their place, private and writable: what
//! the guest writes is its own, and what it only reads it shares with every other guest of this host. The file may be
//! removed or replaced meanwhile, but, like a running program's, neither be written, which may show, nor cut short.
//!
//! Of a file whose most pages the guest will write, those are copied at once: else KVM would bring in each of them twice, first
//! to be read and then to be written. Measured on a kernel, which patches nearly all of its code, that halves the nested
//! page faults. What the guest is known to write little of stays in the file, and so does what pads the kernel's parts to whole huge
//! pages, which nobody looks at.
//!
//! Used by the boot recipe, before the guest runs. Nothing here parses the file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    Bytes, FileOffset, MmapRegion, ReadVolatile, VolatileMemory as _, VolatileMemoryError,
    VolatileSlice,
};

use crate::layout::PAGE_BYTES;
use crate::memory::HUGE_PAGE_BYTES;

/// A file that is mapped into the guest memory it is read to.
pub struct MappedFile<'a> {
    file: &'a mut File,
    /// The part of the file that the guest hardly writes to, in bytes.
    hardly_written: Range<u64>,
}

impl<'a> MappedFile<'a> {
    /// A file which the guest will write most of, but for the part `hardly_written`, in bytes.
    pub fn written(file: &'a mut File, hardly_written: Range<u64>) -> Self {
        Self {
            file,
            hardly_written,
        }
    }

    /// A file which the guest will only read.
    pub fn read_only(file: &'a mut File) -> Self {
        Self {
            file,
            hardly_written: 0..u64::MAX,
        }
    }
}

impl Read for MappedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for MappedFile<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
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
        Ok(mapped + self.file.read_volatile(&mut rest)?)
    }
}

impl MappedFile<'_> {
    /// Maps the whole pages that come next, and passes over them; returns their bytes.
    fn map_pages<B: BitmapSlice>(&mut self, memory: &VolatileSlice<B>) -> io::Result<usize> {
        let position = self.file.stream_position()?;
        let bytes = self.mappable(position, memory)?;
        if bytes > 0 {
            self.map(position, memory, bytes)?;
            self.copy_content(position, memory, bytes)?;
            memory.bitmap().mark_dirty(0, bytes);
            self.file.seek(SeekFrom::Start(position + bytes as u64))?;
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
        let left = self.file.metadata()?.len().saturating_sub(position);
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
                self.file.as_raw_fd(),
                position,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Where, in the `bytes` from `position` on, the guest writes: whole pages, cut at the ends of huge pages.
    fn written_parts(&self, position: u64, bytes: usize) -> Vec<Range<usize>> {
        let end = position + bytes as u64;
        let place = |at: u64| usize::try_from(at.clamp(position, end) - position).unwrap_or(bytes);
        let page_bytes = usize::try_from(PAGE_BYTES).unwrap_or(bytes);
        // `position` is at a page: rounded here, no place near the largest number overflows.
        let first = place(self.hardly_written.start).next_multiple_of(page_bytes);
        let last = place(self.hardly_written.end) / page_bytes * page_bytes;
        let parts = [0..first.min(last), last..bytes];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.flat_map(huge_pages).collect()
    }

    /// Gives the guest its own copy of what it writes to of what is mapped at the start of `memory`, padding at the ends of huge
    /// pages apart.
    fn copy_content<B: BitmapSlice>(
        &self,
        position: u64,
        memory: &VolatileSlice<B>,
        bytes: usize,
    ) -> io::Result<()> {
        let parts = self.written_parts(position, bytes);
        if parts.is_empty() {
            return Ok(());
        }
        // Looked at in a mapping aside: a page that is mapped to be read is more work to copy.
        let file = FileOffset::new(self.file.try_clone()?, position);
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let aside = MmapRegion::<()>::build(Some(file), bytes, libc::PROT_READ, flags)
            .map_err(io::Error::other)?;
        let page_bytes = usize::try_from(PAGE_BYTES).map_err(io::Error::other)?;
        for Range { start, end } in parts {
            let mut content_end = end;
            if is_padding(&aside, end - page_bytes) {
                let pages: Vec<_> = (start..end).step_by(page_bytes).collect();
                let content = pages.partition_point(|page| !is_padding(&aside, *page));
                content_end = start + content * page_bytes;
            }
            copy(memory, start, content_end)?;
        }
        Ok(())
    }
}

/// The parts of `part` that lie in one huge page each.
fn huge_pages(part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = part.start - part.start % HUGE_PAGE_BYTES;
    let starts = (first..part.end).step_by(HUGE_PAGE_BYTES);
    starts.map(move |start| start.max(part.start)..part.end.min(start + HUGE_PAGE_BYTES))
}

/// Whether the page at `page` holds one word over and over, by its first and a few far apart. An error costs a page's
/// copy, or lets it come later.
fn is_padding(content: &MmapRegion, page: usize) -> bool {
    let content = content.as_volatile_slice();
    let word = |offset| content.read_obj::<u64>(page + offset).ok();
    let first = word(0);
    [0x338, 0x8a0, 0xff8]
        .into_iter()
        .all(|offset| word(offset) == first)
}

/// Copies the mapped pages from `start` to `end`.
fn copy<B: BitmapSlice>(memory: &VolatileSlice<B>, start: usize, end: usize) -> io::Result<()> {
    assert!(start <= end && end <= memory.len());
    if start == end {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "advice about guest memory")]
    // SAFETY: the range lies in `memory`, which is a mapping of ours; its bytes stay what they are.
    let done = unsafe {
        let first = memory.ptr_guard_mut().as_ptr().add(start);
        libc::madvise(first.cast(), end - start, libc::MADV_POPULATE_WRITE)
    };
    let error = io::Error::last_os_error();
    // Before Linux 5.14 pages come when they are touched.
    if done != 0 && error.raw_os_error() != Some(libc::EINVAL) {
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{GuestAddress, GuestMemory as _};

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
        let memory = memory::map(2, 0).unwrap();
        memory
            .read_exact_volatile_from(
                GuestAddress(address),
                &mut MappedFile::written(&mut file, 0..0),
                bytes,
            )
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

    /// Kilobytes of this process's memory at `address` that are its own, by smaps.
    fn private_kib(address: usize) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, mapping) = maps.split_once(&format!("{address:x}-")).unwrap();
        let value = |key| {
            let (_, rest) = mapping.split_once(key).unwrap();
            let number = rest.split_whitespace().next().unwrap();
            number.parse::<u64>().unwrap()
        };
        value("Anonymous:")
    }

    #[test]
    fn read_of_a_file_the_guest_writes_copies_all_but_padding() {
        let mut bytes = content(16 << 10);
        bytes.resize(HUGE_PAGE_BYTES, 0xcc);
        bytes.extend(content(12 << 10));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let memory = memory::map(24, 0).unwrap();
        let place = |address, file: &mut MappedFile<'_>| {
            let address = GuestAddress(address);
            file.rewind().unwrap();
            memory
                .read_exact_volatile_from(address, file, bytes.len())
                .unwrap();
            let mut copy = vec![0; bytes.len()];
            memory.read_slice(&mut copy, address).unwrap();
            assert!(copy == bytes);
            private_kib(memory.get_host_address(address).unwrap().addr())
        };
        // The whole pages of what is hardly written stay in the file.
        let huge_page = HUGE_PAGE_BYTES as u64;
        for (index, (hardly_written, private)) in [
            (0..0, 28),
            (0..1, 28),
            (5..8193, 24),
            (huge_page + 4000..huge_page + 8192, 24),
            (8192..huge_page + 4096, 16),
            (u64::MAX - 5..u64::MAX, 28),
        ]
        .into_iter()
        .enumerate()
        {
            let address = (2 + 3 * index as u64) << 20;
            let mapped = &mut MappedFile::written(&mut file, hardly_written.clone());
            assert_eq!(place(address, mapped), private, "{hardly_written:?}");
        }
        assert_eq!(place(20 << 20, &mut MappedFile::read_only(&mut file)), 0);
    }

    #[test]
    fn read_beyond_the_files_end_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content(5000)).unwrap();
        file.rewind().unwrap();
        let memory = memory::map(2, 0).unwrap();
        let read = memory.read_exact_volatile_from(
            GuestAddress(0),
            &mut MappedFile::written(&mut file, 0..0),
            8192,
        );
        assert!(read.is_err());
    }
}

//! Guest memory: one type throughout the crate, and how a machine's RAM is laid out and mapped.

use std::io;

use anyhow::{Context, Result, ensure};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::{
    Address, GuestAddress, GuestMemory as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionMmap, MmapRegion,
};

use crate::layout::{MMIO_HOLE, MMIO_HOLE_END};

/// Guest-physical memory. Clones share the mapping.
pub type GuestMemory = GuestMemoryMmap<Bitmap>;

/// What marks written pages: nothing here, but virtiofsd takes only memory that has this one.
pub type Bitmap = BitmapMmapRegion;

/// What a device may read of a descriptor chain.
pub type Reader<'m> = virtio_queue::Reader<'m, Bitmap>;

/// What a device may write of a descriptor chain.
pub type Writer<'m> = virtio_queue::Writer<'m, Bitmap>;

/// Size of a huge page, bytes. KVM maps one into the guest only where guest and host address are the same multiple of it.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Protection of memory that the guest has.
const USABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Start and length, in bytes, of each piece of RAM in a machine of `memory_mib`.
pub fn ranges(memory_mib: u32) -> Vec<(u64, u64)> {
    let bytes = u64::from(memory_mib) << 20;
    let low = bytes.min(MMIO_HOLE);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((MMIO_HOLE_END, bytes - low));
    }
    ranges
}

/// Start and length, in bytes, of what a machine of `memory_mib` can be given later, above all else: Linux adds memory in blocks
/// of 128 MiB, which begin at multiples of that.
pub fn pluggable(memory_mib: u32, pluggable_mib: u32) -> (u64, u64) {
    const BLOCK: u64 = 128 << 20;
    let (last, bytes) = ranges(memory_mib).pop().unwrap_or_default();
    let start = MMIO_HOLE_END.max(last + bytes).next_multiple_of(BLOCK);
    let bytes = u64::from(pluggable_mib) << 20;
    (start, bytes.next_multiple_of(BLOCK))
}

/// Maps a machine's RAM: private and anonymous, without reserving swap, aligned for huge pages. It is never unmapped: a
/// process runs one machine, and what lives as long as the process needs no owner. One that makes several keeps what each
/// has touched.
///
/// What is [`pluggable`] is addresses alone, until it is made usable.
///
/// # Errors
/// When the host has no room for the mapping.
pub fn map(memory_mib: u32, pluggable_mib: u32) -> Result<GuestMemory> {
    let usable = ranges(memory_mib).into_iter().map(|range| (range, USABLE));
    let later = (pluggable(memory_mib, pluggable_mib), libc::PROT_NONE);
    let regions = usable
        .chain([later])
        .filter(|((_, bytes), _)| *bytes > 0)
        .map(|((start, bytes), protection)| region(start, usize::try_from(bytes)?, protection))
        .collect::<Result<Vec<_>>>()
        .with_context(|| {
            format!("map {memory_mib} MiB of guest memory and {pluggable_mib} for later")
        })?;
    Ok(GuestMemory::from_regions(regions)?)
}

/// Lets a span of [`pluggable`] memory be used, or takes it back with what is in it: in that order, so that nobody brings
/// anything back meanwhile. KVM ends the guest that uses what is not usable, the kernel a process.
///
/// # Errors
/// Those of mprotect and madvise.
pub fn set_usable(memory: &GuestMemory, (start, bytes): (u64, u64), usable: bool) -> Result<()> {
    let bytes = usize::try_from(bytes)?;
    let span = memory.get_slice(GuestAddress(start), bytes)?;
    let first = span.ptr_guard_mut().as_ptr().cast();
    let protection = if usable { USABLE } else { libc::PROT_NONE };
    #[expect(
        unsafe_code,
        reason = "vm-memory neither protects memory nor gives any back"
    )]
    // SAFETY: the span lies in one region, which is never unmapped, and is anonymous; what is in it is the guest's alone.
    let done = unsafe {
        libc::mprotect(first, bytes, protection) == 0
            && (usable || libc::madvise(first, bytes, libc::MADV_DONTNEED) == 0)
    };
    ensure!(done, io::Error::last_os_error());
    Ok(())
}

fn region(start: u64, bytes: usize, protection: i32) -> Result<GuestRegionMmap<Bitmap>> {
    const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let room = bytes
        .checked_add(HUGE_PAGE_BYTES)
        .context("more than there are addresses")?;
    #[expect(
        unsafe_code,
        reason = "vm-memory gives no say in where a mapping begins"
    )]
    // SAFETY: a new mapping where the kernel finds room.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), room, protection, FLAGS, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().into());
    }
    let lead = mapped.addr().next_multiple_of(HUGE_PAGE_BYTES) - mapped.addr();
    #[expect(unsafe_code, reason = "the region is a part of a larger mapping")]
    // SAFETY: `lead` is at most a huge page, so `bytes` from there on lie in the mapping, and nothing ever unmaps them.
    // What surrounds them is unmapped and used by nobody. Advice leaves their bytes as they are.
    let region = unsafe {
        let first = mapped.byte_add(lead);
        libc::munmap(mapped, lead);
        libc::munmap(first.byte_add(bytes), HUGE_PAGE_BYTES - lead);
        // Below the kernel lie tables of a few pages, written one by one: no huge page is cleared for them.
        if start == 0 {
            libc::madvise(first, HUGE_PAGE_BYTES.min(bytes), libc::MADV_NOHUGEPAGE);
        }
        MmapRegion::build_raw(first.cast(), bytes, protection, FLAGS)?
    };
    GuestRegionMmap::new(region, GuestAddress(start)).context("no such guest-physical addresses")
}

/// Makes `memory` the guest-physical memory of `vm`, one memory slot a region.
///
/// # Errors
/// Those of KVM_SET_USER_MEMORY_REGION.
pub fn register(vm: &VmFd, memory: &GuestMemory) -> Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        #[expect(unsafe_code, reason = "KVM reads and writes our memory from now on")]
        // SAFETY: the range is a mapping that is never unmapped (`map`); regions of one GuestMemory do not overlap.
        unsafe { vm.set_user_memory_region(region) }
            .with_context(|| format!("give guest memory slot {slot} to KVM"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn map_large_machine_is_aligned_for_huge_pages_in_every_piece() {
        let memory = map(3073, 0).unwrap();
        let mut bytes = 0;
        for region in memory.iter() {
            assert!(region.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
            bytes += region.len();
        }
        assert_eq!(bytes, 3073 << 20);
    }

    #[test]
    fn ranges_small_machine_is_one_piece_below_the_hole() {
        assert_eq!(ranges(256), [(0, 256 << 20)]);
        assert_eq!(ranges(3072), [(0, 3 << 30)]);
    }

    #[test]
    fn ranges_large_machine_goes_on_above_the_hole() {
        assert_eq!(ranges(3073), [(0, 3 << 30), (4 << 30, 1 << 20)]);
    }

    #[test]
    fn memory_to_be_plugged_lies_above_all_else_in_blocks_of_linux() {
        const BLOCK: u64 = 128 << 20;
        assert_eq!(pluggable(300, 0), (4 << 30, 0));
        assert_eq!(pluggable(300, 1), (4 << 30, BLOCK));
        assert_eq!(pluggable(3073, 129), ((4 << 30) + BLOCK, 2 * BLOCK));
    }

    #[test]
    fn memory_that_is_taken_back_comes_back_empty() {
        let memory = map(1, 128).unwrap();
        let (start, bytes) = pluggable(1, 128);
        let (half, last) = (bytes / 2, GuestAddress(start + bytes - 1));
        let upper = (start + half, half);
        set_usable(&memory, upper, true).unwrap();
        memory.write_obj(7u8, last).unwrap();
        set_usable(&memory, (start, half), true).unwrap();
        assert_eq!(memory.read_obj::<u8>(last).unwrap(), 7);
        set_usable(&memory, upper, false).unwrap();
        set_usable(&memory, upper, true).unwrap();
        assert_eq!(memory.read_obj::<u8>(last).unwrap(), 0);
        let beyond = set_usable(&memory, (start + half, bytes), true);
        assert!(beyond.is_err());
    }
}

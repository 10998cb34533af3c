//! Guest memory: one type throughout the crate, and how a machine's RAM is laid out and mapped.

use anyhow::{Context, Result};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestAddress, GuestMemory as _, GuestMemoryMmap, GuestMemoryRegion as _};

use crate::layout::{MMIO_HOLE, MMIO_HOLE_END};

/// Guest-physical memory. Clones share the mapping.
pub type GuestMemory = GuestMemoryMmap<()>;

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

/// Maps a machine's RAM: private and anonymous, without reserving swap.
///
/// # Errors
/// When the host has no room for the mapping.
pub fn map(memory_mib: u32) -> Result<GuestMemory> {
    let ranges = ranges(memory_mib)
        .into_iter()
        .map(|(start, bytes)| Ok((GuestAddress(start), usize::try_from(bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    GuestMemory::from_ranges(&ranges)
        .with_context(|| format!("map {memory_mib} MiB of guest memory"))
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
        // SAFETY: the range is a mapping that `memory` owns, and the machine drops it after the VM; regions of one
        // GuestMemory do not overlap.
        unsafe { vm.set_user_memory_region(region) }
            .with_context(|| format!("give guest memory slot {slot} to KVM"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_small_machine_is_one_piece_below_the_hole() {
        assert_eq!(ranges(256), [(0, 256 << 20)]);
        assert_eq!(ranges(3072), [(0, 3 << 30)]);
    }

    #[test]
    fn ranges_large_machine_goes_on_above_the_hole() {
        assert_eq!(ranges(3073), [(0, 3 << 30), (4 << 30, 1 << 20)]);
    }
}

//! What the kernel finds at its entry: itself, the initramfs, the command line and the "zero page" that names them.
//!
//! Linux, Documentation/arch/x86/boot.rst and zero-page.rst.

use std::fs::File;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use elf::ElfStream;
use elf::endian::LittleEndian;
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::elf::Elf;
use linux_loader::loader::{KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress};

use crate::layout::{
    BASE_MEMORY_END, BOOT_PARAMS, COMMAND_LINE, COMMAND_LINE_BYTES, HIGH_MEMORY, MMIO_HOLE,
    MP_TABLE, PAGE_BYTES, VIRTIO_MMIO_BYTES, slot_address, slot_irq,
};
use crate::mapped_file::MappedFile;
use crate::memory::{GuestMemory, ranges};

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const LOADER_UNDEFINED: u8 = 0xff;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// What every kernel is told, in order; why:
/// - earlyprintk: the only console is the port for last words; `keep` has it stay.
/// - console=ttynull: /dev/console must open.
/// - no_timer_check: there is no PIT to check.
/// - tsc=reliable: no clocksource watchdog.
/// - maxcpus=1: guest-init brings the others online when the pod needs them.
/// - retain_initrd: the initramfs is only ever read, and so stays the host's page cache; to free it would be to write it.
/// - swiotlb=noforce: no 64 MiB of bounce buffers in a machine that reaches above 4 GiB; no device here does DMA.
/// - reboot=k, panic=-1: a panic resets at once, by the keyboard controller.
const COMMAND_LINE_ALWAYS: &str = "earlyprintk=serial,ttyS0,keep console=ttynull no_timer_check tsc=reliable swiotlb=noforce maxcpus=1 retain_initrd reboot=k panic=-1";

/// Where a piece of guest memory holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Guest-physical address.
    pub address: u64,
    /// Length, bytes.
    pub bytes: u64,
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Guest-physical address of the 64-bit entry.
    pub entry: u64,
    /// First address after the kernel, its zeroed part included.
    pub end: u64,
}

/// Puts the segments of an ELF kernel at their physical addresses.
///
/// # Errors
/// When it is no 64-bit x86 ELF file or does not fit the low memory of `memory_mib`.
pub fn load_kernel(memory: &GuestMemory, memory_mib: u32, kernel: &mut File) -> Result<Kernel> {
    let hardly_written = constants(kernel).unwrap_or_default();
    let loaded = Elf::load(
        memory,
        None,
        &mut MappedFile::written(kernel, hardly_written),
        Some(GuestAddress(HIGH_MEMORY)),
    )
    .context(
        "load kernel: not an uncompressed x86-64 ELF kernel, or too large for the machine's memory",
    )?;
    let end = loaded.kernel_end;
    ensure!(
        end <= low_memory(memory_mib),
        "{memory_mib} MiB of memory is too small for this kernel"
    );
    Ok(Kernel {
        entry: loaded.kernel_load.0,
        end,
    })
}

/// Where an ELF kernel has its constants, bytes of the file: some of them are written once, while it starts. Those of a kernel
/// without names of sections are copied with the rest.
fn constants(kernel: &File) -> Option<Range<u64>> {
    let mut elf = ElfStream::<LittleEndian, _>::open_stream(kernel).ok()?;
    let constants = *elf.section_header_by_name(".rodata").ok()??;
    Some(constants.sh_offset..constants.sh_offset.checked_add(constants.sh_size)?)
}

/// Puts the initramfs at the top of low memory.
///
/// # Errors
/// When it does not fit above the kernel.
pub fn load_initramfs(
    memory: &GuestMemory,
    memory_mib: u32,
    kernel: Kernel,
    initramfs: &mut File,
) -> Result<Placed> {
    let bytes = initramfs.metadata().context("stat initramfs")?.len();
    let address = low_memory(memory_mib)
        .checked_sub(bytes)
        .map(|address| address / PAGE_BYTES * PAGE_BYTES);
    let address = address.filter(|address| *address >= kernel.end);
    let address = address.with_context(|| {
        format!("{memory_mib} MiB of memory is too small for kernel and initramfs")
    })?;
    memory
        .read_exact_volatile_from(
            GuestAddress(address),
            &mut MappedFile::read_only(initramfs),
            usize::try_from(bytes)?,
        )
        .context("read initramfs")?;
    Ok(Placed { address, bytes })
}

/// The command line of a machine with devices in slots of these numbers.
///
/// # Errors
/// When it is too long, or `extra` is no text for a command line.
pub fn command_line(
    slots: impl IntoIterator<Item = u8>,
    debug: bool,
    extra: &str,
) -> Result<Cmdline> {
    let mut line = Cmdline::new(COMMAND_LINE_BYTES).context("create command line")?;
    // First: it must be in force when early printk shows what was said so far.
    line.insert_str(if debug { "ignore_loglevel" } else { "quiet" })
        .context("build command line")?;
    line.insert_str(COMMAND_LINE_ALWAYS)
        .context("build command line")?;
    for slot in slots {
        line.add_virtio_mmio_device(
            VIRTIO_MMIO_BYTES,
            GuestAddress(slot_address(slot)),
            slot_irq(slot),
            None,
        )
        .context("name device on command line")?;
    }
    if !extra.is_empty() {
        line.insert_str(extra)
            .with_context(|| format!("add {extra:?} to command line"))?;
    }
    Ok(line)
}

/// Writes command line and zero page.
///
/// # Errors
/// When guest memory ends before them.
pub fn write(
    memory: &GuestMemory,
    memory_mib: u32,
    line: &Cmdline,
    initramfs: Placed,
) -> Result<()> {
    load_cmdline(memory, GuestAddress(COMMAND_LINE), line).context("write command line")?;
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = u32::try_from(COMMAND_LINE)?;
    params.hdr.cmdline_size = u32::try_from(COMMAND_LINE_BYTES)?;
    params.hdr.ramdisk_image = u32::try_from(initramfs.address)?;
    params.hdr.ramdisk_size = u32::try_from(initramfs.bytes)?;
    let map = memory_map(memory_mib);
    params.e820_entries = u8::try_from(map.len())?;
    params.e820_table[..map.len()].copy_from_slice(&map);
    memory
        .write_obj(params, GuestAddress(BOOT_PARAMS))
        .context("write boot parameters")
}

/// RAM but for the MP table's KiB and the old video and BIOS area.
fn memory_map(memory_mib: u32) -> Vec<boot_e820_entry> {
    let entry = |addr: u64, end: u64, type_| boot_e820_entry {
        addr,
        size: end - addr,
        type_,
    };
    let mut map = vec![
        entry(0, MP_TABLE, E820_RAM),
        entry(MP_TABLE, BASE_MEMORY_END, E820_RESERVED),
        entry(HIGH_MEMORY, low_memory(memory_mib), E820_RAM),
    ];
    for (start, bytes) in ranges(memory_mib).into_iter().skip(1) {
        map.push(entry(start, start + bytes, E820_RAM));
    }
    map
}

/// End of the RAM below the MMIO hole.
fn low_memory(memory_mib: u32) -> u64 {
    (u64::from(memory_mib) << 20).min(MMIO_HOLE)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn command_line_names_present_devices_only() {
        let line = command_line([0, 2], false, "a=b")
            .unwrap()
            .as_cstring()
            .unwrap()
            .into_string()
            .unwrap();
        assert!(line.contains(
            " virtio_mmio.device=4K@0xd0000000:10 virtio_mmio.device=4K@0xd0002000:12 a=b"
        ));
        assert!(line.starts_with("quiet "));
        assert_eq!(line.matches("virtio_mmio").count(), 2);
    }

    #[test]
    fn command_line_of_all_slots_fits() {
        command_line(0..14, true, "").unwrap();
        assert!(command_line([], false, &"x".repeat(COMMAND_LINE_BYTES)).is_err());
    }

    #[test]
    fn memory_map_leaves_out_mp_table_and_mmio_hole() {
        let map: Vec<(u64, u64, u32)> = memory_map(4096)
            .iter()
            .map(|entry| (entry.addr, entry.size, entry.type_))
            .collect();
        assert_eq!(
            map,
            [
                (0, 0x9fc00, 1),
                (0x9fc00, 0x400, 2),
                (0x10_0000, (3 << 30) - 0x10_0000, 1),
                (4 << 30, 1 << 30, 1)
            ]
        );
    }

    #[test]
    fn load_kernel_not_elf_is_refused_by_name() {
        let memory = crate::memory::map(2, 0).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[0x7f; 4096]).unwrap();
        let error = format!("{:#}", load_kernel(&memory, 2, &mut file).unwrap_err());
        assert!(
            error.contains("not an uncompressed x86-64 ELF kernel"),
            "{error}"
        );
    }

    #[test]
    fn load_initramfs_larger_than_memory_is_refused() {
        let memory = crate::memory::map(2, 0).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 2 << 20]).unwrap();
        let kernel = Kernel {
            entry: HIGH_MEMORY,
            end: HIGH_MEMORY + 4096,
        };
        assert!(load_initramfs(&memory, 2, kernel, &mut file).is_err());
    }
}

//! The MP table: which CPUs there are, the IO-APIC, and an edge-triggered line for each of its pins.
//!
//! Intel MultiProcessor Specification 1.4, chapter 4. Every CPU that may ever come is enabled in it: Linux cannot add
//! others without ACPI.

use anyhow::{Context, Result, ensure};
use vm_memory::{Bytes, GuestAddress};

use crate::layout::{BASE_MEMORY_END, IO_APIC, IO_APIC_PINS, LOCAL_APIC, MAX_CPUS, MP_TABLE};
use crate::memory::GuestMemory;

const SPECIFICATION_1_4: u8 = 4;
/// Version that the in-kernel local APIC reports.
const APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;

const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

const CPU_ENABLED: u8 = 1;
const CPU_BOOT: u8 = 2;
const IO_APIC_USABLE: u8 = 1;
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Active high, edge-triggered.
const HIGH_EDGE: u8 = 0b0101;
const ALL_APICS: u8 = 0xff;

const FLOATING_POINTER_BYTES: usize = 16;
const HEADER_BYTES: usize = 44;

/// Writes floating pointer and table for `cpus` CPUs with APIC ids from 0.
///
/// # Errors
/// When there are more than [`MAX_CPUS`], or none, or guest memory ends before the table.
pub fn write(memory: &GuestMemory, cpus: u8) -> Result<()> {
    ensure!(
        (1..=MAX_CPUS).contains(&cpus),
        "{cpus} CPUs: a machine has 1 to {MAX_CPUS}"
    );
    let bytes = build(cpus);
    ensure!(
        bytes.len() as u64 <= BASE_MEMORY_END - MP_TABLE,
        "MP table of {} bytes is too long",
        bytes.len()
    );
    memory
        .write_slice(&bytes, GuestAddress(MP_TABLE))
        .context("write MP table")
}

/// Floating pointer and table as they lie at [`MP_TABLE`].
fn build(cpus: u8) -> Vec<u8> {
    // APIC ids are four bits wide in the IO-APIC's entry only; it takes the first one after the CPUs.
    let io_apic_id = cpus;
    let mut entries = Vec::new();
    for cpu in 0..cpus {
        let boot = if cpu == 0 { CPU_BOOT } else { 0 };
        // Signature and feature flags are left to CPUID.
        entries.extend([PROCESSOR, cpu, APIC_VERSION, CPU_ENABLED | boot]);
        entries.extend([0; 16]);
    }
    entries.extend([BUS, 0]);
    entries.extend(b"ISA   ");
    entries.extend([IO_APIC_ENTRY, io_apic_id, IO_APIC_VERSION, IO_APIC_USABLE]);
    entries.extend(IO_APIC.to_le_bytes());
    for pin in 0..IO_APIC_PINS {
        entries.extend([IO_INTERRUPT, INT, HIGH_EDGE, 0, 0, pin, io_apic_id, pin]);
    }
    entries.extend([LOCAL_INTERRUPT, EXT_INT, 0, 0, 0, 0, 0, 0]);
    entries.extend([LOCAL_INTERRUPT, NMI, 0, 0, 0, 0, ALL_APICS, 1]);
    let count = u16::from(cpus) + u16::from(IO_APIC_PINS) + 4;

    let mut bytes = floating_pointer();
    bytes.extend(header(&entries, count));
    bytes.extend(entries);
    bytes
}

fn floating_pointer() -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    let table = MP_TABLE + FLOATING_POINTER_BYTES as u64;
    bytes.extend(&table.to_le_bytes()[..4]);
    bytes.extend([1, SPECIFICATION_1_4, 0, 0, 0, 0, 0, 0]);
    bytes[10] = checksum(&bytes);
    bytes
}

fn header(entries: &[u8], count: u16) -> Vec<u8> {
    let length = u16::try_from(HEADER_BYTES + entries.len()).unwrap_or(u16::MAX);
    let mut bytes = b"PCMP".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend([SPECIFICATION_1_4, 0]);
    bytes.extend(b"FAIRING MICROVM     ");
    // No OEM table.
    bytes.extend([0; 6]);
    bytes.extend(count.to_le_bytes());
    bytes.extend(LOCAL_APIC.to_le_bytes());
    // No extended table.
    bytes.extend([0; 4]);
    bytes[7] = checksum(&[&bytes, entries].concat());
    bytes
}

/// The byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn mptable_checksums_are_zero() {
        for cpus in [1, 3, 32] {
            let bytes = build(cpus);
            let (pointer, table) = bytes.split_at(FLOATING_POINTER_BYTES);
            assert_eq!(sum(pointer), 0);
            assert_eq!(sum(table), 0);
        }
    }

    #[test]
    fn mptable_of_32_cpus_fits_its_kib() {
        assert_eq!(build(32).len(), 924);
    }

    #[test]
    fn mptable_header_counts_its_entries_and_bytes() {
        let bytes = build(3);
        let table = &bytes[FLOATING_POINTER_BYTES..];
        assert_eq!(&table[..4], b"PCMP");
        assert_eq!(
            usize::from(u16::from_le_bytes([table[4], table[5]])),
            table.len()
        );
        assert_eq!(
            u16::from_le_bytes([table[34], table[35]]),
            3 + 1 + 1 + 24 + 2
        );
        assert_eq!(bytes[4..8], 0x9_fc10u32.to_le_bytes());
    }

    #[test]
    fn mptable_first_cpu_is_the_boot_cpu_and_all_are_enabled() {
        let bytes = build(2);
        let cpus = &bytes[FLOATING_POINTER_BYTES + HEADER_BYTES..];
        assert_eq!(
            cpus[..4],
            [PROCESSOR, 0, APIC_VERSION, CPU_ENABLED | CPU_BOOT]
        );
        assert_eq!(cpus[20..24], [PROCESSOR, 1, APIC_VERSION, CPU_ENABLED]);
    }

    #[test]
    fn mptable_none_or_33_cpus_is_refused() {
        let memory = crate::memory::map(1, 0).unwrap();
        assert!(write(&memory, 0).is_err());
        assert!(write(&memory, 33).is_err());
        write(&memory, 32).unwrap();
    }
}

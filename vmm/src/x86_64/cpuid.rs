//! CPUID of each vCPU: what KVM supports on this host, with the topology of our machine (one package, one thread a
//! core) and each CPU's own APIC id written into it.
//!
//! Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.

use anyhow::{Context, Result};
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};

/// Leaf 1, ECX: one-shot timer by IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: EBX holds a count of logical processors.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX: the logical processors of leaf 1 are cores.
const CMP_LEGACY: u32 = 1 << 1;
/// Extended topology: level type "SMT".
const LEVEL_SMT: u32 = 1 << 8;
/// Extended topology: level type "core".
const LEVEL_CORE: u32 = 2 << 8;

/// CPUID that KVM supports on this host, without per-CPU values.
///
/// # Errors
/// Those of KVM_GET_SUPPORTED_CPUID.
pub fn supported(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .context("get supported CPUID from KVM")?;
    let mut entries = supported.as_slice().to_vec();
    // KVM emulates the deadline timer in its local APIC but older kernels do not list it; without a PIT the guest
    // depends on it.
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        entries
            .iter_mut()
            .filter(|entry| entry.function == 1)
            .for_each(|entry| entry.ecx |= TSC_DEADLINE);
    }
    Ok(entries)
}

/// The table for the vCPU with APIC id `apic_id` of `cpus`.
///
/// # Errors
/// When the table is larger than KVM takes.
pub fn for_vcpu(supported: &[kvm_cpuid_entry2], apic_id: u8, cpus: u8) -> Result<CpuId> {
    CpuId::from_entries(&entries_for_vcpu(supported, apic_id, cpus)).context("build CPUID table")
}

fn entries_for_vcpu(
    supported: &[kvm_cpuid_entry2],
    apic_id: u8,
    cpus: u8,
) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = supported
        .iter()
        .copied()
        // Written anew, or (0x8000_0026) left out: the guest then uses 0xb.
        .filter(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_0026))
        .collect();
    entries
        .iter_mut()
        .for_each(|entry| patch(entry, apic_id, cpus));
    for function in [0xb, 0x1f] {
        if supported.iter().any(|entry| entry.function == function) {
            entries.extend(extended_topology(function, apic_id, cpus));
        }
    }
    entries
}

fn patch(entry: &mut kvm_cpuid_entry2, apic_id: u8, cpus: u8) {
    let (id, count) = (u32::from(apic_id), u32::from(cpus));
    let several = if cpus > 1 { u32::MAX } else { 0 };
    match entry.function {
        1 => {
            entry.ebx = (entry.ebx & 0xffff) | (count << 16) | (id << 24);
            entry.ecx |= HYPERVISOR;
            entry.edx = (entry.edx & !HTT) | (several & HTT);
        }
        4 if entry.eax & 0x1f != 0 => {
            let last_id = (1 << id_bits(cpus)) - 1;
            entry.eax = (entry.eax & 0x3fff) | (sharing(entry.eax, count) << 14) | (last_id << 26);
        }
        0x8000_0001 => entry.ecx = (entry.ecx & !CMP_LEGACY) | (several & CMP_LEGACY),
        // Cores less one, and how many bits of the APIC id number them.
        0x8000_0008 => entry.ecx = (entry.ecx & !0xf0ff) | (count - 1) | (id_bits(cpus) << 12),
        0x8000_001d if entry.eax & 0x1f != 0 => {
            entry.eax = (entry.eax & 0x3fff) | (sharing(entry.eax, count) << 14);
        }
        // One thread a core, one node a processor.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
        _ => {}
    }
}

/// Logical processors that share a cache, less one: levels 1 and 2 belong to a core, the others to the package.
fn sharing(eax: u32, cpus: u32) -> u32 {
    let level = (eax >> 5) & 7;
    if level < 3 { 0 } else { cpus - 1 }
}

fn extended_topology(function: u32, apic_id: u8, cpus: u8) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: index | kind,
        edx: apic_id.into(),
        ..Default::default()
    };
    [
        level(0, 0, 1, LEVEL_SMT),
        level(1, id_bits(cpus), cpus.into(), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

/// Bits of the APIC id that number CPUs.
fn id_bits(cpus: u8) -> u32 {
    u32::from(cpus).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, eax: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax,
            ..Default::default()
        }
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap()
    }

    #[test]
    fn cpuid_leaf_1_has_apic_id_and_count() {
        let entries = entries_for_vcpu(&[entry(1, 0)], 2, 3);
        let leaf = find(&entries, 1, 0);
        assert_eq!(leaf.ebx, 2 << 24 | 3 << 16);
        assert_ne!(leaf.ecx & HYPERVISOR, 0);
        assert_ne!(leaf.edx & HTT, 0);
        assert_eq!(
            find(&entries_for_vcpu(&[entry(1, 0)], 0, 1), 1, 0).edx & HTT,
            0
        );
    }

    #[test]
    fn cpuid_extended_topology_numbers_cores_in_every_vcpu() {
        let entries = entries_for_vcpu(&[entry(0xb, 0)], 4, 5);
        assert_eq!(find(&entries, 0xb, 0).ebx, 1);
        let core = find(&entries, 0xb, 1);
        assert_eq!((core.eax, core.ebx, core.edx), (3, 5, 4));
        assert_eq!(core.ecx, 0x201);
        assert!(entries.iter().all(|entry| entry.function != 0x1f));
    }

    #[test]
    fn cpuid_caches_l1_private_l3_shared() {
        let l1 = find(
            &entries_for_vcpu(&[entry(4, 0xffff_c000 | 1 << 5 | 1)], 0, 4),
            4,
            0,
        );
        assert_eq!(((l1.eax >> 14) & 0xfff, l1.eax >> 26), (0, 3));
        let l3 = find(&entries_for_vcpu(&[entry(4, 3 << 5 | 3)], 0, 4), 4, 0);
        assert_eq!((l3.eax >> 14) & 0xfff, 3);
    }

    #[test]
    fn cpuid_amd_leaf_1e_is_one_thread_a_core() {
        let leaf = find(
            &entries_for_vcpu(&[entry(0x8000_001e, 9)], 3, 4),
            0x8000_001e,
            0,
        );
        assert_eq!((leaf.eax, leaf.ebx, leaf.ecx), (3, 3, 0));
    }
}

//! The model-specific registers that a firmware would have set before Linux starts.
//!
//! Intel SDM volume 4.

use anyhow::{Context, Result, ensure};
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Fast strings.
const MISC_ENABLE_FAST_STRING: u64 = 1;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs enabled, everything write-back; without this Linux turns PAT off.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// Sets them.
///
/// # Errors
/// When KVM does not know one of them.
pub fn set(vcpu: &VcpuFd) -> Result<()> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries = [
        entry(IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        entry(IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ];
    let msrs = Msrs::from_entries(&entries).context("build MSR list")?;
    let set = vcpu.set_msrs(&msrs).context("set MSRs")?;
    ensure!(
        set == entries.len(),
        "KVM refused MSR {:#x}",
        entries[set].index
    );
    Ok(())
}

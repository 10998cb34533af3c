//! The control registers that a firmware would have set before Linux starts, model-specific and extended.
//!
//! Intel SDM volume 4 (MSRs), volume 1 chapter 13 (XCR0).

use anyhow::{Context, Result, ensure};
use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_xcr, kvm_xcrs};
use kvm_ioctls::VcpuFd;

const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Fast strings.
const MISC_ENABLE_FAST_STRING: u64 = 1;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs enabled, everything write-back; without this Linux turns PAT off.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

/// Sets the MSRs.
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

/// Turns on every state component of `cpuid` in XCR0, as Linux would do itself: a KVM nested in an emulated host may
/// never learn of the guest's XSETBV, and its CPUID would then contradict the processor.
///
/// # Errors
/// Those of KVM_SET_XCRS.
pub fn set_xcr0(vcpu: &VcpuFd, cpuid: &CpuId) -> Result<()> {
    let mut entries = cpuid.as_slice().iter();
    let components = entries.find(|entry| entry.function == 0xd && entry.index == 0);
    let Some(components) = components else {
        return Ok(());
    };
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0] = kvm_xcr {
        xcr: 0,
        value: u64::from(components.edx) << 32 | u64::from(components.eax),
        ..Default::default()
    };
    vcpu.set_xcrs(&xcrs).context("set XCR0")
}

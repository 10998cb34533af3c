//! Whether this host's KVM can boot a kernel at all. Some /dev/kvm are software that interprets the guest's kernel mode
//! and lacks instructions every kernel uses. A guest of a few bytes tells in milliseconds.

use anyhow::{Context, Result};
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress};

use crate::layout::{END_PORT, IDENTITY_MAP, TSS};
use crate::memory;
use crate::vm;
use crate::x86_64::{cpuid, entry};

/// What the guest of a few bytes showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether KVM carried out the instructions that kernels use.
    pub boots_kernels: bool,
    /// What it said when it did not.
    pub reason: Option<String>,
}

const CODE: u64 = 0x10_0000;
/// How the guest says that every instruction was carried out.
const DONE: u8 = 1;

/// Runs the guest.
///
/// # Errors
/// When KVM cannot even make the machine.
pub fn probe(kvm: &Kvm) -> Result<Probe> {
    let vm = vm::create(kvm)?;
    vm.set_identity_map_address(IDENTITY_MAP)
        .context("set identity map address")?;
    vm.set_tss_address(TSS).context("set TSS address")?;
    let memory = memory::map(2, 0)?;
    memory::register(&vm, &memory)?;
    memory
        .write_slice(&code(), GuestAddress(CODE))
        .context("write the probe's guest")?;
    entry::write_tables(&memory)?;
    let mut vcpu = vm.create_vcpu(0).context("create vCPU")?;
    vcpu.set_cpuid2(&cpuid::for_vcpu(&cpuid::supported(kvm)?, 0, 1)?)
        .context("set CPUID")?;
    entry::set_registers(&vcpu, CODE)?;

    let reason = match vcpu.run() {
        Ok(VcpuExit::IoOut(END_PORT, [DONE])) => None,
        Ok(VcpuExit::InternalError) => {
            Some("KVM cannot emulate an instruction that kernels use".to_owned())
        }
        Ok(exit) => Some(format!("unexpected exit {exit:?}")),
        Err(error) => Some(format!("KVM_RUN: {error}")),
    };
    Ok(Probe {
        boots_kernels: reason.is_none(),
        reason,
    })
}

fn code() -> Vec<u8> {
    let [port_low, port_high] = END_PORT.to_le_bytes();
    let mut code = vec![0xf3, 0x0f, 0xb8, 0xc1]; // popcnt eax, ecx
    code.extend([0x48, 0x0f, 0xc7, 0x4c, 0x24, 0xf0]); // cmpxchg16b [rsp - 16]: loads edx
    code.extend([0x66, 0xba, port_low, port_high]); // mov dx, END_PORT
    code.extend([0xb0, DONE, 0xee]); // mov al, 1; out dx, al
    code
}

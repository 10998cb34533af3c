//! Whether this host's KVM can boot a kernel at all. Some /dev/kvm are software that interprets the guest's kernel mode
//! and lacks instructions every kernel uses. A guest of a few bytes tells in milliseconds.

use std::time::{Duration, Instant};

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
    /// Time of [`LOOP_INSTRUCTIONS`] instructions in the guest's kernel mode.
    pub loop_time: Duration,
}

/// Length of the timed loop: microseconds on hardware, milliseconds where each one is interpreted.
pub const LOOP_INSTRUCTIONS: u32 = 20_000;

const CODE: u64 = 0x10_0000;
/// End of the first part: the loop is over.
const LOOPED: u8 = 1;
/// End of the second part: every instruction was carried out.
const DONE: u8 = 2;

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

    let start = Instant::now();
    let looped = expect(vcpu.run(), LOOPED);
    let loop_time = start.elapsed();
    let reason = looped.and_then(|()| expect(vcpu.run(), DONE)).err();
    Ok(Probe {
        boots_kernels: reason.is_none(),
        reason,
        loop_time,
    })
}

fn expect(exit: Result<VcpuExit<'_>, kvm_ioctls::Error>, code: u8) -> Result<(), String> {
    match exit {
        Ok(VcpuExit::IoOut(END_PORT, [written])) if *written == code => Ok(()),
        Ok(VcpuExit::InternalError) => {
            Err("KVM cannot emulate an instruction that kernels use".to_owned())
        }
        Ok(exit) => Err(format!("unexpected exit {exit:?}")),
        Err(error) => Err(format!("KVM_RUN: {error}")),
    }
}

fn code() -> Vec<u8> {
    let [port_low, port_high] = END_PORT.to_le_bytes();
    let port = [0x66, 0xba, port_low, port_high]; // mov dx, END_PORT
    let mut code = port.to_vec();
    code.push(0xb9); // mov ecx, half of the instructions
    code.extend((LOOP_INSTRUCTIONS / 2).to_le_bytes());
    code.extend([0xff, 0xc9, 0x75, 0xfc]); // dec ecx; jnz back
    code.extend([0xb0, LOOPED, 0xee]); // mov al, 1; out dx, al
    code.extend([0xf3, 0x0f, 0xb8, 0xc1]); // popcnt eax, ecx
    code.extend([0x48, 0x0f, 0xc7, 0x4c, 0x24, 0xf0]); // cmpxchg16b [rsp - 16]: loads edx
    code.extend(port);
    code.extend([0xb0, DONE, 0xee]); // mov al, 2; out dx, al
    code.push(0xf4); // hlt
    code
}

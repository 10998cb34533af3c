//! The state of the boot CPU at the kernel's 64-bit entry: identity-mapped first GiB, flat segments, RSI at the boot
//! parameters.
//!
//! Linux, Documentation/arch/x86/boot.rst, "64-bit boot protocol".

use anyhow::{Context, Result};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use crate::layout::{BOOT_PARAMS, BOOT_STACK, GDT, PAGE_BYTES, PAGE_TABLES};
use crate::memory::GuestMemory;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
/// Null, unused, 64-bit code (selector 0x10), flat data (selector 0x18).
const GDT_ENTRIES: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const GDT_LIMIT: u16 = 31;

const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit of RFLAGS that is always one; interrupts off.
const RFLAGS: u64 = 2;

const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Writes the GDT and page tables that map the first GiB to itself.
///
/// # Errors
/// When guest memory ends before them.
pub fn write_tables(memory: &GuestMemory) -> Result<()> {
    let [level4, level3, level2] = [0, 1, 2].map(|page| PAGE_TABLES + page * PAGE_BYTES);
    let pages = (0..512).map(|page| (level2 + page * 8, (page * LARGE_PAGE_BYTES) | LARGE_PAGE));
    let tables = [(level4, level3), (level3, level2)]
        .into_iter()
        .chain(pages);
    for (address, entry) in tables {
        memory
            .write_obj(entry | PRESENT_WRITABLE, GuestAddress(address))
            .context("write page tables")?;
    }
    memory
        .write_obj(GDT_ENTRIES, GuestAddress(GDT))
        .context("write GDT")
}

/// Points `vcpu` at `entry`, the address of the kernel's 64-bit entry; [`write_tables`] comes before it runs.
///
/// # Errors
/// Those of KVM.
pub fn set_registers(vcpu: &VcpuFd, entry: u64) -> Result<()> {
    let mut sregs = vcpu.get_sregs().context("get special registers")?;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = GDT_LIMIT;
    sregs.cs = segment(CODE_SELECTOR, 0xb, true);
    let data = segment(DATA_SELECTOR, 3, false);
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
    sregs.cr0 |= CR0_PE | CR0_PG;
    vcpu.set_sregs(&sregs).context("set special registers")?;
    let regs = kvm_regs {
        rip: entry,
        rsi: BOOT_PARAMS,
        rsp: BOOT_STACK,
        rbp: BOOT_STACK,
        rflags: RFLAGS,
        ..Default::default()
    };
    vcpu.set_regs(&regs).context("set registers")
}

/// A flat segment, present, of 4 KiB granularity.
fn segment(selector: u16, type_: u8, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

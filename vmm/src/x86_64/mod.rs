//! What is x86-64 about the machine: CPUID, MSRs, the state of a CPU at the kernel's entry, the MP table and the boot
//! parameters. Called by the boot recipe, before any vCPU runs.

pub mod boot_params;
pub mod cpuid;
pub mod entry;
pub mod mptable;
pub mod msrs;

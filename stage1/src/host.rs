//! What stage 1 asks the host.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::system::sysinfo;
use vmm::Kvm;
use vmm::probe::probe;

/// CPUs this process may run on, or those that its cgroup gives it the time of. To ask while it is moved is to wait for that.
pub fn cpus() -> u64 {
    thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)
}

/// Physical memory, MiB.
pub fn memory_mib() -> u64 {
    let info = sysinfo();
    (info.totalram * u64::from(info.mem_unit)) >> 20
}

/// Refuses a software KVM that cannot boot a kernel, instead of hanging in it. Costs a look into /sys where hardware
/// KVM is loaded, a tiny machine elsewhere.
///
/// # Errors
/// With the command that helps.
pub fn check_kvm(kvm: &Kvm) -> Result<()> {
    if ["kvm_intel", "kvm_amd"]
        .iter()
        .any(|module| Path::new("/sys/module").join(module).exists())
    {
        return Ok(());
    }
    let found = probe(kvm).context("probe this host's KVM")?;
    ensure!(
        found.boots_kernels,
        "this host's /dev/kvm is a software KVM that cannot boot a kernel ({}); run on a host with hardware \
         virtualisation, or in a checkout: scripts/on-kvm target/fairing run …",
        found.reason.unwrap_or_default()
    );
    Ok(())
}

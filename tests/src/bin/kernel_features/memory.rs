//! Memory: what databases and language runtimes ask of it, and what must not be there.

use std::ffi::CStr;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("memfd", memfd),
    ("huge_pages", huge_pages),
    ("transparent_huge_pages", transparent_huge_pages),
    ("membarrier", membarrier),
    ("rseq", rseq),
    ("memory_figures", memory_figures),
    ("swap_absent", swap_absent),
    ("userfaultfd_absent", userfaultfd_absent),
];

const NAME: &CStr = c"test";

fn memfd() -> Result<()> {
    let mut file =
        fs::File::from(memfd_create(NAME, MFdFlags::MFD_ALLOW_SEALING).context("memfd_create")?);
    file.write_all(b"text")?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).context("seal")?;
    ensure!(
        file.write_all(b"more").is_err(),
        "a sealed file was written"
    );
    Ok(())
}

fn huge_pages() -> Result<()> {
    const COUNT: &str = "/proc/sys/vm/nr_hugepages";
    let before = fs::read_to_string(COUNT).context("read the number of huge pages")?;
    let wanted: u64 = before.trim().parse::<u64>()? + 1;
    fs::write(COUNT, wanted.to_string()).context("reserve a huge page")?;
    let touched = raw::touch_huge_page();
    fs::write(COUNT, before).context("give it back")?;
    touched
}

/// Offered is enough: with less than 512 MiB the kernel starts with them off.
fn transparent_huge_pages() -> Result<()> {
    let modes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")?;
    ensure!(modes.contains("madvise"), "the modes are {modes}");
    Ok(())
}

fn membarrier() -> Result<()> {
    const MEMBARRIER_CMD_QUERY: i64 = 0;
    const MEMBARRIER_CMD_PRIVATE_EXPEDITED: i64 = 1 << 3;
    let commands = raw::call(libc::SYS_membarrier, [MEMBARRIER_CMD_QUERY]).context("membarrier")?;
    ensure!(
        commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED != 0,
        "no private expedited barrier"
    );
    Ok(())
}

fn rseq() -> Result<()> {
    // An empty registration is refused in another way where the call exists.
    ensure!(
        raw::call(libc::SYS_rseq, [0]) != Err(Errno::ENOSYS),
        "rseq is missing"
    );
    Ok(())
}

fn memory_figures() -> Result<()> {
    ensure!(
        fs::read_to_string("/proc/self/smaps_rollup")?.contains("Pss:"),
        "no Pss in smaps_rollup"
    );
    ensure!(
        fs::read_to_string("/proc/vmstat")?.contains("pgfault"),
        "no pgfault in vmstat"
    );
    Ok(())
}

fn swap_absent() -> Result<()> {
    ensure!(!Path::new("/proc/swaps").exists(), "/proc/swaps exists");
    Ok(())
}

fn userfaultfd_absent() -> Result<()> {
    ensure!(
        raw::call(libc::SYS_userfaultfd, [0]) == Err(Errno::ENOSYS),
        "userfaultfd exists"
    );
    Ok(())
}

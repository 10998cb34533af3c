//! Programs and processes: formats, filters, sandboxes, accounting and the smaller system calls.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::containers::{in_user_namespace, mount};
use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("script", script),
    ("program_32_bit", program_32_bit),
    ("binfmt_misc", binfmt_misc),
    ("core_dumps", core_dumps),
    ("seccomp_filter", seccomp_filter),
    ("landlock", landlock),
    ("keys", keys),
    ("kcmp", kcmp),
    ("capabilities", capabilities),
    ("children_file", children_file),
    ("io_figures", io_figures),
    ("pressure_figures", pressure_figures),
    ("getrandom", getrandom),
];

fn script() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("script");
    // This program itself is the interpreter; it knows no feature of that name and exits, which is enough.
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o700)
        .open(&path)?;
    writeln!(file, "#!{}", std::env::current_exe()?.display())?;
    drop(file);
    let output = Command::new(&path).output().context("start a script")?;
    ensure!(
        output.status.code() == Some(1),
        "the script ended with {}",
        output.status
    );
    Ok(())
}

/// A 32-bit ELF program of 97 bytes: mov eax, 1; mov ebx, 42; int 0x80.
fn program_32_bit() -> Result<()> {
    const BASE: u32 = 0x0804_8000;
    const CODE: [u8; 12] = [0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80];
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2u16, 3].map(u16::to_le_bytes).concat()); // executable, i386
    elf.extend([1, BASE + 84, 52, 0, 0].map(u32::to_le_bytes).concat()); // version, entry, program headers at 52
    elf.extend([52u16, 32, 1, 0, 0, 0].map(u16::to_le_bytes).concat()); // sizes: one program header of 32 bytes
    elf.extend(
        [1, 0, BASE, BASE, 96, 96, 5, 0x1000]
            .map(u32::to_le_bytes)
            .concat(),
    ); // load all, read and execute
    elf.extend(CODE);
    let mut file = fs::File::from(memfd_create(c"program", MFdFlags::empty())?);
    file.write_all(&elf)?;
    file.set_permissions(fs::Permissions::from_mode(0o700))?;
    let status = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .status()
        .context("start it")?;
    ensure!(status.code() == Some(42), "it ended with {status}");
    Ok(())
}

fn binfmt_misc() -> Result<()> {
    in_user_namespace()?;
    let folder = tempfile::tempdir()?;
    mount("binfmt_misc", folder.path(), "binfmt_misc", "")?;
    ensure!(
        fs::read_to_string(folder.path().join("status"))?.trim() == "enabled",
        "not enabled"
    );
    Ok(())
}

fn core_dumps() -> Result<()> {
    exists("/proc/sys/kernel/core_pattern")?;
    exists("/proc/self/coredump_filter")
}

fn seccomp_filter() -> Result<()> {
    let answer = SeccompAction::Errno(u32::try_from(libc::EXDEV)?);
    let rules = BTreeMap::from([(libc::SYS_chroot, vec![])]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program).context("install a filter")?;
    ensure!(
        nix::unistd::chroot("/") == Err(Errno::EXDEV),
        "the filter did not answer"
    );
    Ok(())
}

fn landlock() -> Result<()> {
    const LANDLOCK_CREATE_RULESET_VERSION: i64 = 1;
    let version = raw::call(
        libc::SYS_landlock_create_ruleset,
        [0, 0, LANDLOCK_CREATE_RULESET_VERSION],
    );
    ensure!(
        version.context("landlock_create_ruleset")? >= 4,
        "no rules for networks"
    );
    Ok(())
}

fn keys() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i64 = 1;
    raw::call(libc::SYS_keyctl, [KEYCTL_JOIN_SESSION_KEYRING]).context("a session keyring")?;
    raw::add_key().map(drop)
}

fn kcmp() -> Result<()> {
    const KCMP_FILE: i64 = 0;
    let own = i64::from(std::process::id());
    ensure!(
        raw::call(libc::SYS_kcmp, [own, own, KCMP_FILE, 0, 0]).context("kcmp")? == 0,
        "0 differs from itself"
    );
    Ok(())
}

fn capabilities() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    ensure!(
        status.contains("CapBnd:") && status.contains("Seccomp_filters:"),
        "/proc/self/status lacks them"
    );
    Ok(())
}

fn children_file() -> Result<()> {
    exists("/proc/thread-self/children")
}

fn io_figures() -> Result<()> {
    ensure!(
        fs::read_to_string("/proc/self/io")?.contains("read_bytes"),
        "no read_bytes"
    );
    Ok(())
}

fn pressure_figures() -> Result<()> {
    ensure!(
        fs::read_to_string("/proc/pressure/memory")?.contains("full avg10="),
        "no full line"
    );
    Ok(())
}

fn getrandom() -> Result<()> {
    const GRND_NONBLOCK: i64 = 1;
    raw::call(libc::SYS_getrandom, [0, 0, GRND_NONBLOCK])
        .context("the generator is not seeded")
        .map(drop)
}

fn exists(path: &str) -> Result<()> {
    ensure!(Path::new(path).exists(), "{path} is missing");
    Ok(())
}

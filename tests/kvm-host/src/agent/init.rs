//! The emulated host's first process: from the initramfs to a root file system that looks like the machine's, then
//! one process per port. Everything written outside the named folders stays in memory and goes with the host.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, Pid, chdir, chroot, fork};

use super::{cgroup, port};
use crate::boot::{self, BootOrder};
use crate::wire::spec::PORTS;

/// Where the machine's root is mounted in the initramfs: for the named folders, and read-only for all else.
const MACHINE: &str = "/machine";
const LOWER: &str = "/lower";
const NEW_ROOT: &str = "/new";

/// Sets the host up, then serves until the host is ended from outside.
pub fn run() -> Result<()> {
    let order = BootOrder::decode(&fs::read(boot::PATH).context("read the boot order")?)?;
    load_modules(&order)?;
    mount_machine()?;
    mount_overlay()?;
    bind_folders(&order)?;
    mount_system()?;
    // Only now: every path above is meant in the initramfs.
    enter_new_root()?;
    complete_devices()?;
    cgroup::enable_controllers()?;
    raise_limits()?;
    loopback_up()?;
    nix::unistd::sethostname(&order.host_name).context("set the host name")?;
    serve()
}

fn load_modules(order: &BootOrder) -> Result<()> {
    for path in &order.load {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("load {}", path.display()))?;
    }
    Ok(())
}

fn mount_on(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
    mount(Some(source), target, Some(kind), flags, Some(options))
        .with_context(|| format!("mount {kind} on {target}"))
}

fn mount_machine() -> Result<()> {
    mount_on("root", MACHINE, "virtiofs", MsFlags::empty(), "")?;
    mount_on("lower", LOWER, "virtiofs", MsFlags::MS_RDONLY, "")
}

fn mount_overlay() -> Result<()> {
    mount_on(
        "tmpfs",
        "/upper",
        "tmpfs",
        MsFlags::empty(),
        "mode=755,size=75%",
    )?;
    fs::create_dir("/upper/files")?;
    fs::create_dir("/upper/work")?;
    let options = format!("lowerdir={LOWER},upperdir=/upper/files,workdir=/upper/work");
    mount_on("overlay", NEW_ROOT, "overlay", MsFlags::empty(), &options)
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("bind {} to {}", source.display(), target.display()))
}

/// A path of the machine seen under one of the folders above.
fn under(folder: &str, path: &Path) -> std::path::PathBuf {
    Path::new(folder).join(path.strip_prefix("/").unwrap_or(path))
}

fn bind_folders(order: &BootOrder) -> Result<()> {
    for folder in &order.folders {
        bind(&under(MACHINE, folder), &under(NEW_ROOT, folder))?;
    }
    let release = order.modules.file_name().unwrap_or(OsStr::new(""));
    let modules = Path::new(NEW_ROOT).join("lib/modules").join(release);
    bind(&under(LOWER, &order.modules), &modules)
}

/// What any Linux host has mounted, in an order in which each has its place already, and the emulated host's own store.
fn mount_system() -> Result<()> {
    const NO_SUID_DEV_EXEC: MsFlags = MsFlags::MS_NOSUID
        .union(MsFlags::MS_NODEV)
        .union(MsFlags::MS_NOEXEC);
    const NO_SUID_DEV: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
    const MOUNTS: [(&str, &str, MsFlags, &str); 12] = [
        ("proc", "proc", NO_SUID_DEV_EXEC, ""),
        ("sys", "sysfs", NO_SUID_DEV_EXEC, ""),
        ("sys/kernel/security", "securityfs", NO_SUID_DEV_EXEC, ""),
        ("sys/fs/bpf", "bpf", NO_SUID_DEV_EXEC, "mode=700"),
        ("sys/fs/cgroup", "cgroup2", NO_SUID_DEV_EXEC, "nsdelegate"),
        ("dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=755"),
        (
            "dev/pts",
            "devpts",
            MsFlags::MS_NOSUID,
            "gid=5,mode=620,ptmxmode=666",
        ),
        ("dev/shm", "tmpfs", NO_SUID_DEV, "mode=1777"),
        ("dev/mqueue", "mqueue", NO_SUID_DEV_EXEC, ""),
        ("dev/hugepages", "hugetlbfs", NO_SUID_DEV, ""),
        ("run", "tmpfs", NO_SUID_DEV, "mode=755"),
        (
            "var/lib/fairing",
            "tmpfs",
            MsFlags::empty(),
            "mode=755,size=75%",
        ),
    ];
    for (target, kind, flags, options) in MOUNTS {
        mount_on(kind, &format!("{NEW_ROOT}/{target}"), kind, flags, options)?;
    }
    fs::create_dir_all(format!("{NEW_ROOT}/run/lock")).context("make /run/lock")
}

fn enter_new_root() -> Result<()> {
    // The initramfs is memory as long as its files are there.
    fs::remove_dir_all("/modules").context("empty the initramfs")?;
    chdir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("move the new root into place")?;
    chroot(".").context("enter the new root")?;
    chdir("/")?;
    Ok(())
}

fn complete_devices() -> Result<()> {
    let links = [
        ("/proc/self/fd", "fd"),
        ("fd/0", "stdin"),
        ("fd/1", "stdout"),
        ("fd/2", "stderr"),
    ];
    for (target, name) in links {
        symlink(target, Path::new("/dev").join(name))
            .with_context(|| format!("make /dev/{name}"))?;
    }
    for (name, mode) in [
        ("kvm", 0o660),
        ("vhost-vsock", 0o660),
        ("vhost-net", 0o660),
        ("net/tun", 0o666),
    ] {
        let path = Path::new("/dev").join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("chmod /dev/{name}"))?;
    }
    for name in ["kvm", "vhost-vsock", "vhost-net"] {
        chown(Path::new("/dev").join(name), None, group_id("kvm"))
            .with_context(|| format!("chgrp /dev/{name}"))?;
    }
    Ok(())
}

/// Looked up by hand: a static program has no name service.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut fields = groups
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut line| (line.next()? == name).then_some(line))?;
    fields.nth(1)?.parse().ok()
}

fn raise_limits() -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1 << 20).context("raise the limit of open files")?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "interface flags are set by an ioctl that no crate here covers"
)]
fn loopback_up() -> Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *target = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: the request is a valid ifreq that outlives the call.
    let result = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SIOCSIFFLAGS,
            &request,
        )
    };
    nix::errno::Errno::result(result).context("set lo up")?;
    Ok(())
}

/// One process per port, started again if it ends; orphans of all commands are reaped here.
fn serve() -> Result<()> {
    let mut ports = [Pid::from_raw(0); PORTS];
    for (number, pid) in ports.iter_mut().enumerate() {
        *pid = start_port(number)?;
    }
    loop {
        let ended = wait().context("wait for a process")?.pid();
        let Some((number, pid)) = ports
            .iter_mut()
            .enumerate()
            .find(|(_, pid)| Some(**pid) == ended)
        else {
            continue;
        };
        *pid = start_port(number)?;
    }
}

#[expect(unsafe_code, reason = "a fork that runs on in this program")]
fn start_port(number: usize) -> Result<Pid> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            if let Err(error) = port::serve(number) {
                eprintln!("on-kvm agent, port {number}: {error:#}");
            }
            std::process::exit(1);
        }
    }
}

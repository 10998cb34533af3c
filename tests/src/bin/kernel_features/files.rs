//! Files and file systems: what roots, scratch disks and tools rely on.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl};

use crate::containers::{in_user_namespace, mount};

pub const FEATURES: &[crate::Feature] = &[
    ("kernel", kernel),
    ("file_systems", file_systems),
    ("xattr_and_acl", xattr_and_acl),
    ("locks", locks),
    ("anonymous_file", anonymous_file),
    ("punch_hole", punch_hole),
    ("file_handles", file_handles),
    ("fuse", fuse),
    ("overlay_in_user_namespace", overlay_in_user_namespace),
    ("loop_device", loop_device),
    ("pty", pty),
];

/// Every other trial would prove little on another kernel.
fn kernel() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(
        release.trim_end().ends_with("-fairing"),
        "this is kernel {release}"
    );
    ensure!(Path::new("/proc/config.gz").exists(), "no /proc/config.gz");
    Ok(())
}

fn file_systems() -> Result<()> {
    let known = fs::read_to_string("/proc/filesystems")?;
    for name in [
        "erofs",
        "ext4",
        "overlay",
        "tmpfs",
        "fuse",
        "virtiofs",
        "hugetlbfs",
        "mqueue",
        "cgroup2",
        "binfmt_misc",
    ] {
        ensure!(
            known.split_whitespace().any(|word| word == name),
            "{name} is missing"
        );
    }
    Ok(())
}

fn xattr_and_acl() -> Result<()> {
    // Version 2; then tag, permissions and id of the owner, of user 0, of the group, of the mask and of the others.
    let entries: [(u16, u16, u32); 5] = [
        (1, 7, u32::MAX),
        (2, 4, 0),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    in_user_namespace()?;
    let folder = tempfile::tempdir()?;
    mount("tmpfs", folder.path(), "tmpfs", "")?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    xattr::set(&file, "user.test", b"value").context("set a user attribute")?;
    xattr::set(&file, "system.posix_acl_access", &acl).context("set an ACL")
}

fn locks() -> Result<()> {
    let file = tempfile::tempfile()?;
    let lock = libc::flock {
        l_type: 1,
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).context("lock of an open file description")?;
    file.lock().context("flock")
}

fn anonymous_file() -> Result<()> {
    let folder = std::env::temp_dir();
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(folder)
        .context("O_TMPFILE")
        .map(drop)
}

fn punch_hole() -> Result<()> {
    let file = tempfile::tempfile()?;
    file.set_len(1 << 20)?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, flags, 0, 4096).context("fallocate")
}

fn file_handles() -> Result<()> {
    // Null pointers fault where the call exists.
    let answer = crate::raw::call(libc::SYS_name_to_handle_at, [-1]);
    ensure!(
        answer != Err(nix::Error::ENOSYS),
        "name_to_handle_at is missing"
    );
    Ok(())
}

fn fuse() -> Result<()> {
    in_user_namespace()?;
    let folder = tempfile::tempdir()?;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .context("open /dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    mount("test", folder.path(), "fuse", &options)?;
    nix::mount::umount2(folder.path(), nix::mount::MntFlags::MNT_DETACH).context("unmount")
}

fn overlay_in_user_namespace() -> Result<()> {
    in_user_namespace()?;
    let folder = tempfile::tempdir()?;
    mount("tmpfs", folder.path(), "tmpfs", "")?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(folder.path().join(name))?;
    }
    let at = folder.path().display();
    let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work,userxattr");
    mount(
        "overlay",
        &folder.path().join("merged"),
        "overlay",
        &options,
    )?;
    fs::write(folder.path().join("merged/file"), "text")?;
    ensure!(
        fs::read(folder.path().join("upper/file"))? == b"text",
        "the upper layer lacks the file"
    );
    Ok(())
}

fn loop_device() -> Result<()> {
    const LOOP_CTL_GET_FREE: i64 = 0x4c82;
    let node = Path::new("/dev/loop-control");
    if !node.exists() {
        // A container is not given it.
        let device = nix::sys::stat::makedev(10, 237);
        let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
        nix::sys::stat::mknod(node, nix::sys::stat::SFlag::S_IFCHR, mode, device)
            .context("make /dev/loop-control")?;
    }
    let control = File::open(node).context("open /dev/loop-control")?;
    let number = crate::raw::call(
        libc::SYS_ioctl,
        [i64::from(control.as_raw_fd()), LOOP_CTL_GET_FREE],
    );
    number.context("LOOP_CTL_GET_FREE").map(drop)
}

fn pty() -> Result<()> {
    let pair = nix::pty::openpty(None, None).context("openpty")?;
    nix::unistd::write(&pair.master, b"line\n")?;
    let mut line = [0; 16];
    let length = nix::unistd::read(&pair.slave, &mut line)?;
    ensure!(
        &line[..length] == b"line\n",
        "the terminal gave other bytes"
    );
    Ok(())
}

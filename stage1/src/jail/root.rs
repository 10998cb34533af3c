//! An empty root: a read-only tmpfs in a mount namespace of the process's own, holding the pod's report folder and the
//! folders that are shared with the machine.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use contract::PodDir;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

use super::shares::{self, Taken};
use crate::volumes::Share;

/// What the report folder is called inside.
pub const REPORT: &str = "/rkt";

/// Inodes beside the shares' mount points: for the few folders.
const INODES: usize = 16;

/// Moves the process there; gives its descriptors as /proc shows them. The old root is out of reach afterwards, but for
/// descriptors already open. `taken` are the mounts of `shares`, if they have been taken already.
pub(super) fn enter(pod: &PodDir, taken: Option<Vec<Taken>>, shares: &[Share]) -> Result<File> {
    const NONE: Option<&str> = None;
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .context("unshare the mount namespace")?;
    // Nothing mounted from here on may travel back to the host.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("make all mounts private")?;
    let taken = taken.map_or_else(|| shares::take(shares), Ok)?;
    let descriptors = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open("/proc/self/fd")
        .context("open /proc/self/fd")?;
    // Any folder serves as mount point; this one is the pod's own, and stage 1 needs nothing from it any more.
    let root = pod.stage1_rootfs().join("opt");
    mount(
        Some("tmpfs"),
        &root,
        Some("tmpfs"),
        inert,
        Some(&*format!(
            "size=64k,nr_inodes={},mode=755",
            INODES + taken.len()
        )),
    )
    .context("mount the tmpfs")?;
    let report = root.join(REPORT.trim_start_matches('/'));
    fs::create_dir(&report).context("make the report folder's mount point")?;
    mount(Some(&pod.report()), &report, NONE, MsFlags::MS_BIND, NONE)
        .context("bind the report folder")?;
    mount(
        NONE,
        &report,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | inert,
        NONE,
    )
    .context("bar the report folder")?;
    if !taken.is_empty() {
        shares::attach(&root, taken)?;
    }
    chdir(&root).context("enter the tmpfs")?;
    // With both arguments the same, the old root ends up on top of the new one, and is taken off again.
    pivot_root(Path::new("."), Path::new(".")).context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmount the old root")?;
    chdir("/").context("enter the new root")?;
    mount(
        NONE,
        "/",
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | inert,
        NONE,
    )
    .context("make the root read-only")?;
    Ok(descriptors)
}

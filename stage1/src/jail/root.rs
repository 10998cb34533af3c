//! An empty root: a read-only tmpfs in a mount namespace of the process's own, holding the folders that are shared with
//! the machine, by number, and nothing else. The pod's report folder is not in it but behind a descriptor.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use contract::PodDir;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};
use rustix::fs::CWD;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::open_tree;

use super::Inside;
use super::seccomp::REPORT_DESCRIPTOR;
use super::shares::{self, DETACHED, Taken};
use crate::plan::Plan;

/// Inodes beside the shares' mount points.
const INODES: usize = 4;

/// Moves the process there. The old root is out of reach afterwards, but for descriptors already open. `taken` are the
/// mounts of the plan's shares, if they have been taken already.
pub(super) fn enter(pod: &PodDir, taken: Option<Vec<Taken>>, plan: &Plan) -> Result<Inside> {
    const NONE: Option<&str> = None;
    let inert = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .context("unshare the mount namespace")?;
    // Nothing mounted from here on may travel back to the host.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("make all mounts private")?;
    let taken = taken.map_or_else(|| shares::take(&plan.shares, None), Ok)?;
    let inside = Inside {
        report: report(pod).context("take the report folder")?,
        descriptors: plan
            .shares_folders()
            .then(own_descriptors)
            .transpose()
            .context("take /proc/self/fd")?,
    };
    // Any folder serves as mount point; this one is the pod's own, and stage 1 needs nothing from it any more.
    let root = pod.stage1_rootfs().join("opt");
    let inodes = INODES + taken.len() + usize::from(plan.later_shares);
    let options = format!("size=64k,nr_inodes={inodes},mode=755");
    mount(Some("tmpfs"), &root, Some("tmpfs"), inert, Some(&*options))
        .context("mount the tmpfs")?;
    shares::attach(&root, taken)?;
    chdir(&root).context("enter the tmpfs")?;
    // With both arguments the same, the old root ends up on top of the new one, and is taken off again.
    pivot_root(Path::new("."), Path::new(".")).context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmount the old root")?;
    chdir("/").context("enter the new root")?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, "/", NONE, read_only | inert, NONE).context("make the root read-only")?;
    Ok(inside)
}

/// The process's descriptors as /proc shows them, and nothing else of /proc.
fn own_descriptors() -> Result<File> {
    Ok(open_tree(CWD, "/proc/self/fd", DETACHED)?.into())
}

/// Opens a mount of the report folder, at the number that the filters know.
fn report(pod: &PodDir) -> Result<OwnedFd> {
    let folder = open_tree(CWD, pod.report(), DETACHED).context("take its mount")?;
    let inert = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    shares::change_attributes(folder.as_fd(), inert, 0, None).context("bar its mount")?;
    let report = fcntl_dupfd_cloexec(&folder, REPORT_DESCRIPTOR).context("duplicate it")?;
    ensure!(
        report.as_raw_fd() == REPORT_DESCRIPTOR,
        "its number {REPORT_DESCRIPTOR} is taken"
    );
    Ok(report)
}

//! The host's folders and files that a machine is given: mounted in the jail's root, each at its number, so that the file
//! server reaches them and nothing else. What a share may not do is a property of its mount in the jail, which the host's
//! kernel enforces: no device opens, no link is followed, and what is read-only stays so.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::volumes::{Share, Source};

/// What the folder of all shares is called inside: it is the root.
pub const SHARES: &str = "/";

/// Of a mount that is attached nowhere, and whose parent so is itself.
pub(super) const DETACHED: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Looks at the source of each share, for the user's sake: before anything is made for the pod. No proc file system may
/// be in it: through one a guest would reach the machine's own process.
///
/// # Errors
/// When a source is missing or cannot be reached, or a proc file system comes along with it.
pub fn check(shares: &[Share]) -> Result<()> {
    if shares.is_empty() {
        return Ok(());
    }
    let table = fs::read("/proc/self/mountinfo").context("read the mount table")?;
    let table = String::from_utf8_lossy(&table);
    for share in shares {
        let source = share.source.display();
        let path = fs::canonicalize(&share.source)
            .with_context(|| format!("look at {source}, the source of a volume"))?;
        let mut below = of_kind(&table, "proc").filter(|_| share.recursive);
        let brought = if on_proc(&path) {
            Some(&*path)
        } else {
            below.find(|point| point.starts_with(&path))
        };
        if let Some(point) = brought {
            bail!(
                "volume source {source} brings along the proc file system at {}, which no machine is given; share another \
                 folder, or with recursive=false",
                point.display()
            );
        }
    }
    Ok(())
}

/// Mount points of file systems of a kind, of those whose names have no special characters.
fn of_kind<'a>(table: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Path> {
    table.lines().filter_map(move |line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        (file_system.split(' ').next()? == kind).then(|| Path::new(point))
    })
}

fn on_proc(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

/// A mount of a share's source, attached nowhere yet.
pub struct Taken {
    tree: OwnedFd,
    is_folder: bool,
    /// Of what.
    pub source: Source,
}

/// Takes the mounts of `shares` from the mount namespace that the process is in and has power over. Where `owners` is a user
/// namespace, files have the owners in it that they have here.
pub(super) fn take(shares: &[Share], owners: Option<BorrowedFd<'_>>) -> Result<Vec<Taken>> {
    let take = |share: &Share| {
        take_one(share, owners).with_context(|| format!("share {}", share.source.display()))
    };
    shares.iter().map(take).collect()
}

fn take_one(share: &Share, owners: Option<BorrowedFd<'_>>) -> Result<Taken> {
    let mut flags = DETACHED;
    flags.set(OpenTreeFlags::AT_RECURSIVE, share.recursive);
    let tree = open_tree(CWD, &share.source, flags).context("take its mount")?;
    // The guest resolves its links itself; the server follows none on a share.
    let mut attributes = libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC
        | libc::MOUNT_ATTR_NOSYMFOLLOW;
    if share.read_only {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    change_attributes(tree.as_fd(), attributes, 0, owners)
        .context("bar its mount and map its owners")?;
    // What it is now is what it is when it is attached: the tree's root does not change.
    let tree = File::from(tree);
    let found = tree.metadata().context("look at it")?;
    Ok(Taken {
        tree: tree.into(),
        is_folder: found.is_dir(),
        source: Source {
            share: share.clone(),
            device: found.dev(),
            inode: found.ino(),
        },
    })
}

/// Attaches shares under `root`, which is to become the process's root.
pub(super) fn attach(root: &Path, shares: Vec<Taken>) -> Result<()> {
    let root = File::open(root).context("open the root")?;
    for (number, taken) in (0..).zip(shares) {
        attach_one(root.as_fd(), root.as_fd(), number, &taken)
            .with_context(|| format!("mount share {number}"))?;
    }
    Ok(())
}

/// Attaches a share in the folder `root`, whose files are made by way of `writable`, a mount of the same.
pub(super) fn attach_one(
    root: BorrowedFd<'_>,
    writable: BorrowedFd<'_>,
    number: u16,
    taken: &Taken,
) -> io::Result<()> {
    let name = number.to_string();
    let mode = Mode::RUSR | Mode::WUSR | Mode::XUSR;
    if taken.is_folder {
        mkdirat(writable, &*name, mode)?;
    } else {
        openat(
            writable,
            &*name,
            OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
            mode,
        )?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(&taken.tree, "", root, &*name, flags)?)
}

/// Sets and clears attributes of all mounts of `tree` (mount_setattr(2)), and lets nothing travel to or from them. Where `owners`
/// is a user namespace, files get the owners in it that they have here, which not every file system can.
pub(super) fn change_attributes(
    tree: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    owners: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let map = owners.map_or(0, |_| libc::MOUNT_ATTR_IDMAP);
    let change = libc::mount_attr {
        attr_set: set | map,
        attr_clr: clear,
        propagation: libc::MS_PRIVATE,
        userns_fd: owners.map_or(0, |owners| owners.as_raw_fd().unsigned_abs().into()),
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    #[expect(
        unsafe_code,
        reason = "no binding of mount_setattr among the crates used"
    )]
    // SAFETY: path and structure outlive the call, which is told the structure's size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    Ok(Errno::result(done).map(drop)?)
}

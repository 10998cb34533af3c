//! The host's folders and files that a machine is given: mounted in the jail's root, each at its number, so that the file
//! server reaches them and nothing else. What a share may not do is a property of its mount, which the host's kernel
//! enforces: no device opens, no set-user-id bit counts, and what is read-only stays so.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::volumes::Share;

/// What the folder of all shares is called inside: it is the root.
pub const SHARES: &str = "/";

/// Looks at the source of each share, for the user's sake: before anything is made for the pod.
///
/// # Errors
/// When a source is missing or cannot be reached.
pub fn check(shares: &[Share]) -> Result<()> {
    for Share { source, .. } in shares {
        fs::metadata(source)
            .with_context(|| format!("look at {}, the source of a volume", source.display()))?;
    }
    Ok(())
}

/// A mount of a share's source, attached nowhere yet.
pub(super) struct Taken {
    tree: OwnedFd,
    is_folder: bool,
}

/// Takes the mounts of `shares` from the mount namespace that the process is in and has power over.
pub(super) fn take(shares: &[Share]) -> Result<Vec<Taken>> {
    let take = |share: &Share| {
        take_one(share).with_context(|| format!("share {}", share.source.display()))
    };
    shares.iter().map(take).collect()
}

fn take_one(share: &Share) -> Result<Taken> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, share.recursive);
    let tree = open_tree(CWD, &share.source, flags).context("take its mount")?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if share.read_only {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    set_attributes(tree.as_fd(), attributes).context("bar its mount")?;
    // What it is now is what it is when it is attached: the tree's root does not change.
    let tree = File::from(tree);
    let is_folder = tree.metadata().context("look at it")?.is_dir();
    Ok(Taken {
        tree: tree.into(),
        is_folder,
    })
}

/// Attaches shares under `root`, which is to become the process's root.
pub(super) fn attach(root: &Path, shares: Vec<Taken>) -> Result<()> {
    for (number, Taken { tree, is_folder }) in shares.into_iter().enumerate() {
        let target = root.join(number.to_string());
        if is_folder {
            fs::create_dir(&target)
        } else {
            File::create_new(&target).map(drop)
        }
        .and_then(|()| {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&tree, "", CWD, &target, flags).map_err(io::Error::from)
        })
        .with_context(|| format!("mount share {number}"))?;
    }
    Ok(())
}

/// Sets attributes of all mounts of `tree` (mount_setattr(2)), and lets nothing travel to or from them.
pub(super) fn set_attributes(tree: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
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
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

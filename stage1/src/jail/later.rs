//! Folders and files of the host that a running pod is given, and gives back: by a process outside its jail, which enters the
//! mount namespace of the pod's process. That one opens no path for it, and says only by which numbers its guest finds them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use contract::PodProcess;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, fstatfs, fstatvfs, openat, unlinkat,
};
use rustix::mount::{UnmountFlags, open_tree, unmount};

use super::shares::{self, DETACHED, Taken};
use crate::volumes::Share;

/// `f_type` of a tmpfs, statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Takes the mounts of `shares`, where this process can reach them.
///
/// # Errors
/// When a source is missing, or one that no machine is given.
pub fn take(shares: &[Share]) -> Result<Vec<Taken>> {
    shares::check(shares)?;
    shares::take(shares, None)
}

/// The root of a pod's process, in whose mount namespace this one is.
pub struct PodRoot {
    root: OwnedFd,
    /// The same file system by a mount that can be written.
    writable: OwnedFd,
}

impl PodRoot {
    /// Enters the mount namespace of the pod's process, from which there is no way back.
    ///
    /// # Errors
    /// When this is not root, or the process is gone.
    pub fn enter(pod: &PodProcess) -> Result<Self> {
        let enter = || -> Result<Self> {
            setns(pod, CloneFlags::CLONE_NEWNS)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = openat(CWD, "/", flags, Mode::empty())?;
            // Nothing of the host's is ever made writable.
            let is_jail = fstatfs(&root)?.f_type == TMPFS_MAGIC
                && fstatvfs(&root)?.f_flag.contains(StatVfsMountFlags::RDONLY);
            ensure!(is_jail, "its root is not that of a jail");
            let writable = open_tree(CWD, "/", DETACHED)?;
            shares::change_attributes(writable.as_fd(), 0, libc::MOUNT_ATTR_RDONLY, None)?;
            Ok(Self { root, writable })
        };
        enter().context("enter the mount namespace of the pod's process (as root)")
    }

    /// Attaches shares by numbers that are nobody's yet; all or none.
    ///
    /// # Errors
    /// When there are too many.
    pub fn attach(&self, shares: &[(u16, Taken)]) -> Result<()> {
        let mut done = Vec::new();
        for (number, taken) in shares {
            let (root, writable) = (self.root.as_fd(), self.writable.as_fd());
            done.push(*number);
            let attached = shares::attach_one(root, writable, *number, taken);
            if let Err(error) = attached {
                self.detach(&done);
                return Err(error).with_context(|| {
                    format!("mount share {number} (a pod has at most so many at a time)")
                });
            }
        }
        Ok(())
    }

    /// Detaches shares; what is still open stays so until the pod's process lets go of it.
    pub fn detach(&self, numbers: &[u16]) {
        for number in numbers {
            if let Err(error) = self.detach_one(*number) {
                crate::tell(&format!("take share {number} from the pod: {error}"));
            }
        }
    }

    fn detach_one(&self, number: u16) -> io::Result<()> {
        let name = number.to_string();
        // One that could not be attached has no mount, or not even a name.
        let _ = unmount(
            format!("/{name}"),
            UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        );
        let folder = unlinkat(&self.writable, &*name, AtFlags::REMOVEDIR);
        match folder {
            Err(rustix::io::Errno::NOTDIR) => {
                Ok(unlinkat(&self.writable, &*name, AtFlags::empty())?)
            }
            Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

//! Folders and files of the host that a running pod is given, and gives back: by a process outside its jail, which enters the
//! mount namespace of the pod's process. That one opens no path for it, and has no say.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use contract::PodProcess;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::mount::{UnmountFlags, open_tree, unmount};

use super::shares::{self, DETACHED, Taken};
use crate::volumes::Share;

/// Sources of shares, taken where this process can reach them.
pub struct Sources(Vec<Taken>);

impl Sources {
    /// Takes the mounts of `shares`.
    ///
    /// # Errors
    /// When a source is missing, or one that no machine is given.
    pub fn take(shares: &[Share]) -> Result<Self> {
        shares::check(shares)?;
        shares::take(shares).map(Self)
    }
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
            let writable = open_tree(CWD, "/", DETACHED)?;
            shares::change_attributes(writable.as_fd(), 0, libc::MOUNT_ATTR_RDONLY)?;
            Ok(Self { root, writable })
        };
        enter().context("enter the mount namespace of the pod's process (as root)")
    }

    /// Attaches shares by these numbers, which are nobody's; of several all or none.
    ///
    /// # Errors
    /// When there are too many.
    pub fn attach(&self, sources: Sources, numbers: &[u16]) -> Result<()> {
        for (index, (number, taken)) in numbers.iter().zip(sources.0).enumerate() {
            let (root, writable) = (self.root.as_fd(), self.writable.as_fd());
            let attached = shares::attach_one(root, writable, *number, &taken);
            if let Err(error) = attached {
                self.detach(&numbers[..=index]);
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

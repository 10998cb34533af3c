//! An app's root that was a folder of the host: mounted anew, for this process alone, and packed by it. Root only, as the pod was.

use std::fs::File;
use std::io::{self, BufWriter, Error, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Sent, Tree};
use crate::directories;
use crate::pods::{Pod, make_directory};

/// Hands `take` a tar of `tree`.
///
/// # Errors
/// Those of `take`; if the folder cannot be mounted, or not be read whole.
pub fn read<T>(
    pod: &Pod,
    tree: Tree<'_>,
    take: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the files of this pod lie in folders that only root may mount"
    );
    let found = find(pod, tree)?;
    let (reader, writer) = io::pipe().context("make a pipe")?;
    thread::scope(|scope| {
        let packer = scope.spawn(move || -> Result<()> {
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            let mut writer = BufWriter::new(writer);
            archive::pack(path.as_ref(), tree.name.as_bytes(), &mut writer)?;
            Ok(writer.flush()?)
        });
        let mut packer = Some(packer);
        let mut end = || match packer.take().map(ScopedJoinHandle::join) {
            Some(Ok(packed)) => packed.map_err(|error| Error::other(format!("{error:#}"))),
            Some(Err(_)) => Err(Error::other("the packer panicked")),
            None => Ok(()),
        };
        // Who stops before the end has reasons of his own, and the packer ends as nobody reads.
        take(&mut Sent::new(reader, &mut end))
    })
}

/// Mounts the root of the app where nobody else sees it, so that it is gone with this process; gives what is at the path in it.
fn find(pod: &Pod, tree: Tree<'_>) -> Result<OwnedFd> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("make the mounts private")?;
    for folder in directories::layers_of(pod.dir(), tree.app)? {
        make_directory(&folder)?;
    }
    std::env::set_current_dir(pod.path())
        .with_context(|| format!("enter {}", pod.path().display()))?;
    directories::mount_all(pod.dir(), std::iter::once(tree.app))?;
    let root = File::open(pod.dir().app_rootfs(tree.app)).context("open the app's root")?;
    // Links of the app's lead nowhere else.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    openat2(&root, tree.path, how).with_context(|| format!("find {} in the app's root", tree.path))
}

//! What an app sees besides its files: kernel file systems, devices, what is hidden from it. Called by `furnish`, in the
//! app's root.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};

use crate::app_files::make_folder;
use crate::mount_table::{APP, HIDDEN, READ_ONLY, bind, hide, make_read_only};

/// Character devices: path, mode, major and minor number (the kernel's `devices.txt`).
const DEVICES: &[(&str, u32, u64, u64)] = &[
    ("/dev/null", 0o666, 1, 3),
    ("/dev/zero", 0o666, 1, 5),
    ("/dev/full", 0o666, 1, 7),
    ("/dev/random", 0o666, 1, 8),
    ("/dev/urandom", 0o666, 1, 9),
    ("/dev/tty", 0o666, 5, 0),
    ("/dev/console", 0o620, 5, 1),
    ("/dev/fuse", 0o666, 10, 229),
    ("/dev/net/tun", 0o666, 10, 200),
];

/// Links in /dev: what they mean, and their names.
const LINKS: &[(&str, &str)] = &[
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts and makes all of it, and hides what an app that is `restrict`ed must not see.
pub fn complete(restrict: bool) -> Result<()> {
    APP.iter().try_for_each(|mount| mount.apply())?;
    make_folder("/dev/shm", 0o1777)?;
    bind("shm", "/dev/shm")?;
    make_folder("/dev/net", 0o755)?;
    let umasked = umask(Mode::empty());
    for (path, mode, major, minor) in DEVICES {
        let (mode, device) = (Mode::from_bits_truncate(*mode), makedev(*major, *minor));
        mknod(*path, SFlag::S_IFCHR, mode, device).with_context(|| format!("make {path}"))?;
    }
    umask(umasked);
    LINKS.iter().try_for_each(|(target, path)| {
        symlink(target, path).with_context(|| format!("link {path}"))
    })?;
    if !restrict {
        return Ok(());
    }
    HIDDEN.iter().try_for_each(|path| hide(path))?;
    READ_ONLY.iter().try_for_each(|path| make_read_only(path))
}

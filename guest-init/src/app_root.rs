//! An app's root file system: a writable layer on the scratch space over its image, or a folder of the host's. Called by
//! `furnish`, in a mount namespace of the app's own.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};

use anyhow::{Context, Result};
use guest_init::protocol::{App, Cache, Root};
use nix::unistd::{chdir, chroot, pivot_root};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::disks::{SCRATCH, mount_image};
use crate::mount_table::bind;
use crate::volumes;

/// Where the image is mounted, below the overlay.
const IMAGE: &str = "/image";

/// Where the root is put together.
const ROOT: &str = "/root";

/// Mounts the root of `app` and makes it the process's root: whatever absolute or `..` an image has in a link ends there. The
/// machine's root is the working directory still, so that more can be bound out of it.
pub fn enter(app: &App) -> Result<()> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).context("make the mounts private")?;
    match app.root {
        Root::Image { number, bytes } => {
            mount_image(number, bytes, IMAGE)?;
            overlay(&format!("{SCRATCH}/{}", app.name), IMAGE, ROOT)?;
        }
        Root::Share(number) => bind(&volumes::share(number, Cache::Auto), ROOT)?,
    }
    chdir("/").context("enter the machine's root")?;
    chroot(ROOT).context("change to the app's root")
}

/// Mounts a writable layer, whose folder is `path`, over the folder `lower` at `target`. The root folder of an overlay takes its
/// owner and mode from the writable layer, so the layer's is made like the lower one's.
pub fn overlay(path: &str, lower: &str, target: &str) -> Result<()> {
    let (upper, work) = (&format!("{path}/upper"), &format!("{path}/work"));
    let below = fs::metadata(lower).with_context(|| format!("look at {lower}"))?;
    for folder in [upper, work] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make {folder}"))?;
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(below.mode() & 0o7777))
        .with_context(|| format!("set the mode of {upper}"))?;
    chown(upper, Some(below.uid()), Some(below.gid()))
        .with_context(|| format!("set the owner of {upper}"))?;
    // Hard links stay whole when one of their names is written to.
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},index=on");
    let (flags, data) = (MountFlags::empty(), CString::new(&*options)?);
    mount("overlay", target, "overlay", flags, &*data)
        .with_context(|| format!("mount overlay {options}"))
}

/// Leaves the machine's root for good: the app's becomes that of the mount namespace.
pub fn leave() -> Result<()> {
    // Only from the root that is to be replaced can another be put in its place.
    chroot(".").context("return to the machine's root")?;
    chdir(ROOT).context("enter the app's root")?;
    pivot_root(".", ".").context("change to the app's root")?;
    unmount(".", UnmountFlags::DETACH).context("unmount the machine's root")?;
    chdir("/").context("enter the app's root")
}

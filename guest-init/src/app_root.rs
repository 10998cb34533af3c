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

/// The machine's root, which is the working directory still, so that more can be bound out of it.
pub struct Machine(());

/// Mounts the root of `app` and makes it the process's root: whatever absolute or `..` an image has in a link ends there.
pub fn enter(app: &App) -> Result<Machine> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).context("make the mounts private")?;
    match app.root {
        Root::Image { number, bytes } => {
            mount_image(number, bytes, IMAGE)?;
            mount_overlay(&app.name)?;
        }
        Root::Share(number) => bind(&volumes::share(number, Cache::Auto), ROOT)?,
    }
    chdir("/").context("enter the machine's root")?;
    chroot(ROOT).context("change to the app's root")?;
    Ok(Machine(()))
}

fn mount_overlay(app: &str) -> Result<()> {
    let layer = make_layer(&format!("{SCRATCH}/{app}"), IMAGE)?;
    overlay(IMAGE, &layer, ROOT)
}

/// A writable layer, by its two folders.
pub struct Layer {
    upper: String,
    work: String,
}

/// Makes a writable layer in the folder `path`, to lie over `lower`: the root folder of an overlay takes its owner and mode
/// from the writable layer, so the layer's is made like the lower one's.
pub fn make_layer(path: &str, lower: &str) -> Result<Layer> {
    let layer = Layer {
        upper: format!("{path}/upper"),
        work: format!("{path}/work"),
    };
    let below = fs::metadata(lower).with_context(|| format!("look at {lower}"))?;
    for folder in [&layer.upper, &layer.work] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make {folder}"))?;
    }
    let upper = &layer.upper;
    fs::set_permissions(upper, fs::Permissions::from_mode(below.mode() & 0o7777))
        .with_context(|| format!("set the mode of {upper}"))?;
    chown(upper, Some(below.uid()), Some(below.gid()))
        .with_context(|| format!("set the owner of {upper}"))?;
    Ok(layer)
}

/// Mounts `layer` over the folder `lower` at `target`.
pub fn overlay(lower: &str, Layer { upper, work }: &Layer, target: &str) -> Result<()> {
    // Hard links stay whole when one of their names is written to.
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},index=on");
    let (flags, data) = (MountFlags::empty(), CString::new(&*options)?);
    mount("overlay", target, "overlay", flags, &*data)
        .with_context(|| format!("mount overlay {options}"))
}

impl Machine {
    /// Binds a folder of the machine, a path without leading slash, to `target` in the app's root.
    pub fn bind(&self, source: &str, target: &str) -> Result<()> {
        bind(source, target)
    }

    /// Leaves the machine's root for good: the app's becomes that of the mount namespace.
    pub fn leave(self) -> Result<()> {
        // Only from the root that is to be replaced can another be put in its place.
        chroot(".").context("return to the machine's root")?;
        chdir(ROOT).context("enter the app's root")?;
        pivot_root(".", ".").context("change to the app's root")?;
        unmount(".", UnmountFlags::DETACH).context("unmount the machine's root")?;
        chdir("/").context("enter the app's root")
    }
}

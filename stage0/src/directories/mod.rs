//! Root file systems as directories, for a stage 1 that takes no EROFS files (contract section 1.8): the image's file,
//! mounted by the host's kernel, under an overlay whose writable layer belongs to the pod. Root only.
//!
//! The mounts are made where the contract has them, in the mount namespace of the caller: `run`, `enter` and `gc` are
//! executed there and find the app's files by path. They outlive the process that made them, so whoever releases or
//! removes the pod takes them away.

mod loop_device;
mod mounts;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use contract::{PodDir, present_erofs_files};
use image::Image;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::symlinkat;

use crate::pods::make_directory;
use loop_device::LoopDevice;
pub use mounts::unmount_below;

/// Nothing of an image becomes a device of the host's: a stage 1 gives its apps theirs on mounts of its own.
const FLAGS: MsFlags = MsFlags::MS_NODEV;

/// Where the layers of one app lie in its pod directory, relative to it.
struct Layers {
    /// The image's EROFS file, with the others beside it; apps of one image share it.
    image: PathBuf,
    /// Where that is mounted while the overlay is made.
    lower: PathBuf,
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    fn of(app: &str, tree: &str) -> Self {
        let overlay = Path::new("overlay").join(tree);
        Self {
            image: overlay.join("rootfs.erofs"),
            lower: overlay.join("lower").join(app),
            upper: overlay.join("upper").join(app),
            work: overlay.join("work").join(app),
        }
    }
}

/// Puts what the directory of `app` is later made of into the pod.
///
/// # Errors
/// If something cannot be linked or written.
pub fn place(dir: &PodDir, app: &str, image: &Image) -> Result<()> {
    let tree = format!("deps-{}", image.id);
    let layers = Layers::of(app, &tree);
    for folder in [&layers.lower, &layers.upper, &layers.work] {
        make_directory(&dir.path().join(folder))?;
    }
    let target = dir.path().join(&layers.image);
    if !target.exists() {
        crate::layout::link_image(image, &target)?;
    }
    crate::layout::write(&dir.tree_store_id(app), tree.as_bytes())
}

/// Mounts the directories of those apps that have one. The working directory must be the pod's: names in the options
/// of an overlay are short and free of its separators only when they are relative.
///
/// # Errors
/// If the kernel cannot mount one; those before it stay until the pod is released.
pub fn mount_all<'a>(dir: &PodDir, apps: impl Iterator<Item = &'a str>) -> Result<()> {
    for app in apps {
        let Some(tree) = tree_of(dir, app)? else {
            continue;
        };
        let target = dir.app_rootfs(app);
        make_directory(&target)?;
        mount_layers(&Layers::of(app, &tree), &target)
            .with_context(|| format!("mount the root file system of app {app}"))?;
        link_mtab(&target).with_context(|| format!("make etc/mtab of app {app}"))?;
    }
    Ok(())
}

/// The folders of an app's layers that are its own, relative to nothing; none if it has no directory.
///
/// # Errors
/// If what the pod says of them cannot be read.
pub fn layers_of(dir: &PodDir, app: &str) -> Result<Vec<PathBuf>> {
    let layers = tree_of(dir, app)?.map(|tree| Layers::of(app, &tree));
    let folders = layers.map(|layers| [layers.lower, layers.upper, layers.work]);
    let folders = folders.into_iter().flatten();
    Ok(folders.map(|folder| dir.path().join(folder)).collect())
}

/// The id under which the app's layers lie; `None` if it has no directory.
fn tree_of(dir: &PodDir, app: &str) -> Result<Option<String>> {
    let path = dir.tree_store_id(app);
    match fs::read_to_string(&path) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn mount_layers(layers: &Layers, target: &Path) -> Result<()> {
    // The overlay keeps the image's file system itself.
    with_image(&present_erofs_files(&layers.image), &layers.lower, || {
        take_attributes(&layers.lower, &layers.upper).and_then(|()| mount_overlay(layers, target))
    })
}

/// Mounts an image, of the EROFS file and what follows it, read-only on the folder `at` for as long as `using` takes; the folder goes, too.
///
/// # Errors
/// If the kernel cannot mount it, and those of `using`.
fn with_image(files: &[PathBuf], at: &Path, using: impl FnOnce() -> Result<()>) -> Result<()> {
    let devices = files.iter().map(|file| LoopDevice::attach(file));
    let devices = devices.collect::<Result<Vec<_>>>()?;
    let (image, layers) = devices.split_first().context("an image without a file")?;
    let layers = layers
        .iter()
        .map(|layer| format!("device={}", layer.path().display()));
    mount(
        Some(image.path()),
        at,
        Some("erofs"),
        FLAGS | MsFlags::MS_RDONLY,
        Some(layers.collect::<Vec<_>>().join(",").as_str()),
    )
    .with_context(|| format!("mount {} (is erofs loaded?)", files[0].display()))?;
    let used = using();
    umount2(at, MntFlags::MNT_DETACH).context("unmount the image")?;
    // What other mount namespaces have got of the mount goes with it.
    fs::remove_dir(at).context("delete the image's mount point")?;
    used
}

fn mount_overlay(layers: &Layers, target: &Path) -> Result<()> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.lower.display(),
        layers.upper.display(),
        layers.work.display()
    );
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        FLAGS,
        Some(options.as_str()),
    )
    .context("mount an overlay (a data directory that lies on an overlay itself cannot hold one: choose another by --dir)")
}

/// The root of an overlay has the owner, mode and time of its upper folder, which are to be those of the image's root.
fn take_attributes(lower: &Path, upper: &Path) -> Result<()> {
    let root = fs::metadata(lower).context("look at the image's root")?;
    chown(upper, Some(root.uid()), Some(root.gid())).context("give the writable layer away")?;
    fs::set_permissions(upper, fs::Permissions::from_mode(root.mode() & 0o7777))
        .context("set the mode of the writable layer")?;
    File::open(upper)
        .and_then(|folder| folder.set_modified(root.modified()?))
        .context("set the time of the writable layer")
}

/// As rkt does, in an image that has `/etc` without `mtab`. The image's `/etc` may be a link to anywhere.
fn link_mtab(rootfs: &Path) -> Result<()> {
    let folder = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = open(rootfs, folder, Mode::empty())?;
    let Ok(etc) = openat(&root, "etc", folder, Mode::empty()) else {
        return Ok(());
    };
    match symlinkat("../proc/self/mounts", &etc, "mtab") {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts all that is mounted below the pod, and deletes the mount points of its apps' directories: a mount namespace
/// that was made while the pod ran has copies of them, which only that takes away.
///
/// # Errors
/// If the kernel refuses.
pub fn unmount_all(dir: &PodDir) -> Result<()> {
    unmount_below(dir.path())?;
    let infos = dir.path().join("appsinfo");
    for app in fs::read_dir(infos).into_iter().flatten().flatten() {
        let app = app.file_name();
        if let Some(app) = app.to_str().filter(|app| dir.tree_store_id(app).exists()) {
            // One that has something in it goes with the pod.
            let _ = fs::remove_dir(dir.app_rootfs(app));
        }
    }
    Ok(())
}

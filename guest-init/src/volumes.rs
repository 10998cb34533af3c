//! Volumes: the host's shared folders and empty folders of the pod, placed in an app's root. Called by `main` early, and by
//! `furnish`, after everything else is mounted there.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};
use guest_init::protocol::{App, Cache, Mount, Volume};
use rustix::mount::{MountFlags, mount};

use crate::app_root::overlay;
use crate::disks::SCRATCH;
use crate::mount_table::{bind, remount_read_only};

/// Where PID 1 has the file systems of all shares.
const SHARES: &str = "/shares";

/// Where the pod's empty volumes lie on the scratch space: no ACName, so no app's folder.
const EMPTY: &str = "volumes.";

/// Mounts a file system of all shares.
pub fn mount_shares(cache: Cache) -> Result<()> {
    // Set-user-id programs work in a shared root as in any other; the host has barred them for itself.
    let (flags, name) = (MountFlags::NODEV, cache.name());
    let folder = format!("{SHARES}/{name}");
    fs::create_dir(&folder).with_context(|| format!("make {folder}"))?;
    mount(name, &folder, "virtiofs", flags, None)
        .with_context(|| format!("mount the host's shared folders at {folder}"))
}

/// The path of a share in the machine's root.
pub fn share(number: u16, cache: Cache) -> String {
    format!("{SHARES}/{}/{number}", cache.name())
}

/// Where the empty volume `name` lies, in the machine's root.
pub fn empty(name: &str) -> String {
    format!("{SCRATCH}/{EMPTY}/{name}")
}

/// Forgets the files of shares that nothing uses: the host keeps each open that is remembered here.
pub fn forget_shares() -> Result<()> {
    /// Of clean directory entries and inodes (proc_sys_vm(5), `drop_caches`).
    const ENTRIES_AND_INODES: &str = "2";
    let path = "/proc/sys/vm/drop_caches";
    fs::write(path, ENTRIES_AND_INODES).with_context(|| format!("write {path}"))
}

/// Places the volumes of `app` in its root, in order.
pub fn place(app: &App) -> Result<()> {
    for (index, mount) in app.mounts.iter().enumerate() {
        place_one(app, index, mount)
            .with_context(|| format!("mount a volume at {}", mount.target))?;
    }
    Ok(())
}

fn place_one(app: &App, index: usize, mount: &Mount) -> Result<()> {
    let target = mount.target.as_str();
    // What lies in the machine is reached from its root, which is the working directory.
    match &mount.volume {
        Volume::Share { number, cache } => {
            let path = share(*number, *cache);
            let source = relative(&path);
            let is_folder = fs::metadata(source).context("look at the share")?.is_dir();
            make_target(target, is_folder)?;
            bind(source, target)?;
        }
        Volume::Empty {
            name,
            mode,
            uid,
            gid,
        } => {
            let path = empty(name);
            let source = relative(&path);
            make_empty(source, *mode, *uid, *gid)?;
            make_target(target, true)?;
            bind(source, target)?;
        }
        Volume::Layer => {
            make_target(target, true)?;
            let path = format!("{SCRATCH}/{}/{index}", app.name);
            // By its descriptor: a path may hold characters that mean something among the options of a mount.
            let below = File::open(target).context("open what is below")?;
            let lower = format!("/proc/self/fd/{}", below.as_raw_fd());
            overlay(relative(&path), &lower, target)?;
        }
    }
    if mount.read_only {
        // A remount keeps no flag that it does not name.
        let kept = match mount.volume {
            Volume::Share { .. } => MountFlags::NODEV,
            Volume::Empty { .. } | Volume::Layer => MountFlags::empty(),
        };
        remount_read_only(target, kept).context("make it read-only")?;
    }
    Ok(())
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Makes an empty volume, unless an app before has.
fn make_empty(path: &str, mode: u32, uid: u32, gid: u32) -> Result<()> {
    if let Some(parent) = Path::new(path).parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made.context("make the empty volume")?,
    }
    // The owner first: a change of owner clears set-user-id bits.
    chown(path, Some(uid), Some(gid)).context("give the empty volume its owner")?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .context("give the empty volume its mode")
}

/// Makes what a volume is mounted on, where it is missing.
fn make_target(target: &str, is_folder: bool) -> Result<()> {
    let path = Path::new(target);
    let folder = if is_folder { Some(path) } else { path.parent() };
    if let Some(folder) = folder {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    if is_folder || path.exists() {
        return Ok(());
    }
    File::create(path)
        .map(drop)
        .with_context(|| format!("make {target}"))
}

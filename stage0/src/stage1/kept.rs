//! Stage 1s that are unpacked in `stage1/` of the data directory, once for each version, for all pods to come.
//!
//! ```text
//! NAME/    manifest and rootfs; whoever lays out a pod holds a shared lock on it, `image gc` the only one. Its time is that of its last use
//! lock     held by who unpacks or removes
//! tmp/     what that one is at work on; what lies there otherwise is a dead process'
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use image::Lease;
use nix::unistd::syncfs;

use crate::directories::unmount_below;
use crate::pods::make_directory;

const LOCK: &str = "lock";
const TMP: &str = "tmp";

/// An unpacked stage 1, which stays while this is there.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    /// Keeps the lock.
    _lease: Lease,
}

impl Held {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder of this name, which `fill` fills if it is not there yet: whole or not at all.
///
/// # Errors
/// Those of `fill`, and if the data directory cannot be written.
pub fn once(data: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Held> {
    let folder = data.join("stage1");
    let target = folder.join(name);
    if let Some(held) = hold(&target)? {
        return Ok(held);
    }
    make_directory(&folder)?;
    let _lock = lock(&folder)?;
    if let Some(held) = hold(&target)? {
        return Ok(held);
    }
    let tmp = folder.join(TMP);
    clear(&tmp)?;
    make_directory(&tmp)?;
    fill(&tmp)?;
    // A name that says unpacked must not come back from a crash before the files do.
    syncfs(File::open(&tmp)?).with_context(|| format!("sync {}", tmp.display()))?;
    fs::rename(&tmp, &target).with_context(|| format!("move {}", target.display()))?;
    hold(&target)?.with_context(|| format!("{} was removed meanwhile", target.display()))
}

/// Removes the folders that nobody uses and of which `is_due` says so, by name and the time since their last use, and what killed
/// commands left; tells their names.
///
/// # Errors
/// If something cannot be read or removed.
pub fn collect(data: &Path, is_due: impl Fn(&str, Duration) -> bool) -> Result<Vec<String>> {
    let folder = data.join("stage1");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let _lock = lock(&folder)?;
    let tmp = folder.join(TMP);
    clear(&tmp)?;
    let mut removed = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let (path, name) = match entry {
            Ok(entry) => (entry.path(), entry.file_name()),
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        let Some(name) = name.to_str().filter(|name| *name != LOCK) else {
            continue;
        };
        let Ok(Some(_claim)) = Lease::claim(&path) else {
            continue;
        };
        if !is_due(name, idle(&path)) {
            continue;
        }
        // Whoever is killed now leaves what the next one clears, and no half of a stage 1 under its name.
        fs::rename(&path, &tmp).with_context(|| format!("move {}", path.display()))?;
        clear(&tmp)?;
        removed.push(name.to_owned());
    }
    Ok(removed)
}

/// The time since the last use; none if that is in the future.
fn idle(folder: &Path) -> Duration {
    let used = fs::metadata(folder).and_then(|metadata| metadata.modified());
    let used = used.unwrap_or_else(|_| SystemTime::now());
    SystemTime::now().duration_since(used).unwrap_or_default()
}

fn lock(folder: &Path) -> Result<File> {
    let lock = File::create(folder.join(LOCK)).context("open the lock of unpacked stage 1s")?;
    lock.lock().context("lock the unpacked stage 1s")?;
    Ok(lock)
}

fn hold(target: &Path) -> Result<Option<Held>> {
    let Some(lease) = Lease::share(target)? else {
        return Ok(None);
    };
    // Who may not say when it was used keeps nobody from using it.
    let _ = File::open(target).and_then(|folder| folder.set_modified(SystemTime::now()));
    Ok(Some(Held {
        path: target.to_owned(),
        _lease: lease,
    }))
}

fn clear(tmp: &Path) -> Result<()> {
    if !tmp.exists() {
        return Ok(());
    }
    unmount_below(&fs::canonicalize(tmp)?)?;
    fs::remove_dir_all(tmp).with_context(|| format!("delete {}", tmp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(target: &Path) -> Result<()> {
        fs::write(target.join("manifest"), "")?;
        Ok(())
    }

    #[test]
    fn folder_that_somebody_holds_is_not_collected() -> Result<()> {
        let data = tempfile::tempdir()?;
        assert_eq!(collect(data.path(), |_, _| true)?, Vec::<String>::new());
        let held = once(data.path(), "one", fill)?;
        drop(once(data.path(), "two", fill)?);
        drop(once(data.path(), "young", fill)?);
        assert_eq!(collect(data.path(), |name, _| name != "young")?, ["two"]);
        assert!(held.path().join("manifest").exists());
        drop(held);
        let day = Duration::from_secs(24 * 3600);
        assert!(collect(data.path(), |_, idle| idle >= day)?.is_empty());
        let mut rest = collect(data.path(), |_, _| true)?;
        rest.sort();
        assert_eq!(rest, ["one", "young"]);
        Ok(())
    }

    #[test]
    fn what_a_killed_command_left_is_cleared_by_either() -> Result<()> {
        let data = tempfile::tempdir()?;
        let tmp = data.path().join("stage1/tmp");
        for clears in [true, false] {
            fs::create_dir_all(tmp.join("rootfs"))?;
            match clears {
                true => assert!(collect(data.path(), |_, _| false)?.is_empty()),
                false => drop(once(data.path(), "one", fill)?),
            }
            assert!(!tmp.exists());
        }
        assert!(!data.path().join("stage1/one/rootfs").exists());
        Ok(())
    }
}

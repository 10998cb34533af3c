//! Deletes a pod that is not running: its stage 1 cleans up, what is mounted below it goes, its files go.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

use super::release::{release_exited, run_gc_entrypoint};
use super::{Folder, Lock, Pod, story};
use crate::directories;
use crate::settings::Settings;
use crate::warn;

/// Marks a pod that is to be removed as soon as it has exited.
const MARK: &str = "remove";

/// Has the pod removed when it has exited: by its parent, if that lives then, else by the next command.
///
/// # Errors
/// If it cannot be marked.
pub fn remove_once_exited(pod: &Pod) -> Result<()> {
    let path = pod.path().join(MARK);
    File::create(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(())
}

/// Whether it is to be removed when it has exited.
pub(super) fn is_to_be_removed(pod: &Pod) -> bool {
    pod.path().join(MARK).exists()
}

/// Deletes the pod whose lock is held, in whichever state it is.
///
/// # Errors
/// If files cannot be deleted; the next command then tries again.
pub fn remove(mut pod: Pod, lock: &Lock, settings: &Settings) -> Result<()> {
    let cleaned = match pod.folder() {
        // Before the move: a pod in `run` is looked after by every command, should this one be cut short.
        Folder::Run => release_exited(&pod, settings),
        Folder::ExitedGarbage => run_gc_entrypoint(&pod, settings),
        _ => Ok(()),
    };
    if let Err(error) = cleaned {
        // As in rkt, a stage 1 that cannot clean up does not keep its pod's files alive.
        warn(&error);
    }
    // Before there is less to tell.
    if let Err(error) = story::keep(&pod) {
        warn(&error);
    }
    match pod.folder() {
        Folder::Run => pod.move_to(Folder::ExitedGarbage, lock)?,
        Folder::Embryo | Folder::Prepare | Folder::Prepared => {
            pod.move_to(Folder::Garbage, lock)?;
        }
        Folder::ExitedGarbage | Folder::Garbage => {}
    }
    directories::unmount_below(pod.path())?;
    // The manifest goes last, so that a removal cut short still tells what the pod was.
    let path = pod.path();
    for entry in fs::read_dir(path).with_context(|| format!("delete pod {}", path.display()))? {
        let entry = entry?.path();
        if entry != pod.dir().manifest() {
            delete(&entry).with_context(|| format!("delete {}", entry.display()))?;
        }
    }
    fs::remove_dir_all(path).with_context(|| format!("delete pod {}", path.display()))
}

/// Removes a pod that has ended, wherever another command has moved it; one that is gone is removed.
///
/// # Errors
/// As [`remove`].
pub fn remove_ended(pod: &Pod, settings: &Settings) -> Result<()> {
    // A command that has the lock has the pod removed, or marked for removal, when it lets go of it.
    for folder in [Folder::Run, Folder::ExitedGarbage] {
        let seen = pod.seen_in(folder);
        if let Some(lock) = seen.lock_when_unlocked()? {
            return remove(seen, &lock, settings);
        }
    }
    Ok(())
}

fn delete(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

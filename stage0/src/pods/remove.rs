//! Deletes a pod that is not running: its stage 1 cleans up, what is mounted below it goes, its files go.

use std::fs;
use std::path::{Path, PathBuf};

use crate::warn;
use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::{Folder, Lock, Pod, run_gc_entrypoint};
use crate::settings::Settings;

/// Deletes the pod whose lock is held, in whichever state it is.
///
/// # Errors
/// If files cannot be deleted; the next command then tries again.
pub fn remove(mut pod: Pod, lock: &Lock, settings: &Settings) -> Result<()> {
    match pod.folder() {
        Folder::Run => pod.move_to(Folder::ExitedGarbage, lock)?,
        Folder::Embryo | Folder::Prepare | Folder::Prepared => {
            pod.move_to(Folder::Garbage, lock)?;
        }
        Folder::ExitedGarbage | Folder::Garbage => {}
    }
    if pod.folder() == Folder::ExitedGarbage
        && let Err(error) = run_gc_entrypoint(&pod, settings)
    {
        // As in rkt, a stage 1 that cannot clean up does not keep its pod's files alive.
        warn(&error);
    }
    unmount_below(pod.path())?;
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

fn delete(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Takes away every mount below `dir`, the latest first; one that is busy goes when its last user does.
fn unmount_below(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut points: Vec<_> = mount_points(&table)
        .filter(|point| point.starts_with(dir))
        .collect();
    while let Some(point) = points.pop() {
        umount2(&point, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH))
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// Mount points of a mountinfo table, in the order of mounting (proc(5)).
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_are_read() {
        let table =
            "36 35 98:0 / /a\\040b rw - ext4 /dev/x rw\n37 36 98:0 / /c rw - ext4 /dev/y rw\n";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, [PathBuf::from("/a b"), PathBuf::from("/c")]);
    }
}

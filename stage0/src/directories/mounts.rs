//! Takes away what is mounted below a directory, whoever mounted it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Takes away every mount below `dir`, the latest first; one that is busy goes when its last user does. `dir` must be
/// canonical, as the kernel's table is.
///
/// # Errors
/// If the kernel refuses.
pub fn unmount_below(dir: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut points: Vec<_> = mount_points(&table)
        .filter(|point| point.starts_with(dir))
        .collect();
    while let Some(point) = points.pop() {
        let unmounted = umount2(&point, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH));
        match unmounted {
            // Another command may be at it, too.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("unmount {}", point.display()));
            }
        }
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

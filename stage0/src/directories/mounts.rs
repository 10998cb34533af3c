//! Takes away what is mounted below a directory, whoever mounted it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Takes away every mount below `dir`, the latest first; one that is busy goes when its last user does. `dir` must be
/// canonical, as the kernel's table is.
///
/// # Errors
/// If the kernel refuses, or something is mounted there all the same: what is then deleted might be another's.
pub fn unmount_below(dir: &Path) -> Result<()> {
    let points = points_below(dir)?;
    if points.is_empty() {
        return Ok(());
    }
    for point in points.into_iter().rev() {
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
    match points_below(dir)?.first() {
        None => Ok(()),
        Some(point) => bail!("unmount {}: it is still mounted", point.display()),
    }
}

fn points_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let points = mount_points(&table).filter(|point| point.starts_with(dir));
    Ok(points.collect())
}

/// Mount points of a mountinfo table, in the order of mounting (proc(5)). Their names are bytes of anybody's choice.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsStr::from_bytes(&unescape(point))))
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let (byte, left) = match (first, rest) {
            (b'\\', [b'0', b'4', b'0', left @ ..]) => (b' ', left),
            (b'\\', [b'0', b'1', b'1', left @ ..]) => (b'\t', left),
            (b'\\', [b'0', b'1', b'2', left @ ..]) => (b'\n', left),
            (b'\\', [b'1', b'3', b'4', left @ ..]) => (b'\\', left),
            _ => (*first, rest),
        };
        bytes.push(byte);
        text = left;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_of_any_bytes_are_read() {
        let table = b"36 35 98:0 / /a\\040b\\134040 rw - ext4 /dev/x rw\n\
                      37 36 98:0 / /\xff rw - ext4 /dev/y rw\n38 36 98:0 / /c rw - ext4 /dev/y rw\n";
        let points: Vec<_> = mount_points(table).collect();
        let odd = PathBuf::from(OsStr::from_bytes(b"/\xff"));
        assert_eq!(points, ["/a b\\040".into(), odd, PathBuf::from("/c")]);
    }
}

//! What is mounted where, as values: the machine's own kernel file systems and those that every app sees.
//!
//! Applied by `machine` in PID 1 and by `app_view` in an app's process.

use std::ffi::CStr;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};

/// One mount.
pub struct Mount {
    /// File system type; empty for a bind mount.
    pub kind: &'static str,
    /// Where it goes.
    pub target: &'static str,
    /// Mount flags.
    pub flags: MountFlags,
    /// The file system's own options.
    pub options: &'static CStr,
}

const NOSUID: MountFlags = MountFlags::NOSUID;
const HARMLESS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const NO_FILES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

const fn new(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
) -> Mount {
    Mount {
        kind,
        target,
        flags,
        options,
    }
}

/// PID 1's, in order: cgroup2 lies in sysfs.
pub const MACHINE: &[Mount] = &[
    new("devtmpfs", "/dev", NOSUID, c"mode=755"),
    new("proc", "/proc", HARMLESS, c""),
    new("sysfs", "/sys", HARMLESS, c""),
    // Delegated: an app cannot write the limits of its own cgroup, which is the root of those it sees.
    new("cgroup2", "/sys/fs/cgroup", HARMLESS, c"nsdelegate"),
    // POSIX shared memory belongs to the IPC namespace, which all apps of the pod share.
    new("tmpfs", "/shm", NO_FILES, c"mode=1777"),
];

/// Each app's, in order: what hides something comes before what is to be seen in it.
pub const APP: &[Mount] = &[
    new("proc", "/proc", HARMLESS, c""),
    new("sysfs", "/sys", HARMLESS.union(MountFlags::RDONLY), c""),
    // Of /sys/fs an app sees its cgroups alone.
    new("tmpfs", "/sys/fs", HARMLESS, c"mode=755,size=64k"),
    new("cgroup2", "/sys/fs/cgroup", HARMLESS, c""),
    new("tmpfs", "/dev", NOSUID, c"mode=755,size=64k"),
    new(
        "devpts",
        "/dev/pts",
        NOSUID.union(MountFlags::NOEXEC),
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    new("mqueue", "/dev/mqueue", HARMLESS, c""),
];

/// What an app may read but not write (a folder counts with all in it).
pub const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
    "/sys/fs",
];

/// What an app does not see.
pub const HIDDEN: &[&str] = &[
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/sched_debug",
    "/proc/kcore",
    "/proc/kmem",
    "/proc/mem",
    "/sys/firmware",
    "/sys/hypervisor",
    "/sys/module",
    "/sys/power",
];

impl Mount {
    /// Makes the target folder, where it is missing, and mounts.
    pub fn apply(&self) -> Result<()> {
        // A folder of a kernel file system cannot be made; then the mount says what is wrong.
        let _ = std::fs::create_dir_all(self.target);
        mount(self.kind, self.target, self.kind, self.flags, self.options)
            .with_context(|| format!("mount {} at {}", self.kind, self.target))
    }
}

/// Binds `source` to `target`, submounts left out.
pub fn bind(source: &str, target: &str) -> Result<()> {
    mount_bind(source, target).with_context(|| format!("bind {source} to {target}"))
}

/// Makes `target` and, where it is no mount of its own yet, what lies in it read-only. A missing target is none to protect.
pub fn make_read_only(target: &str) -> Result<()> {
    match mount_bind_recursive(target, target) {
        Err(Errno::NOENT) => Ok(()),
        bound => bound
            .and_then(|()| remount_read_only(target, HARMLESS))
            .with_context(|| format!("make {target} read-only")),
    }
}

/// Makes the mount at `target` read-only, and it alone; of its flags it has `kept` afterwards.
pub fn remount_read_only(target: &str, kept: MountFlags) -> rustix::io::Result<()> {
    mount_remount(target, MountFlags::BIND | MountFlags::RDONLY | kept, "")
}

/// Covers `target` with nothing: an empty folder, or /dev/null over a file.
pub fn hide(target: &str) -> Result<()> {
    let empty = MountFlags::RDONLY | HARMLESS;
    match std::fs::symlink_metadata(target) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => mount("tmpfs", target, "tmpfs", empty, c"mode=555,size=4k")
            .with_context(|| format!("hide {target}")),
        Ok(_) => bind("/dev/null", target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Targets that some later mount of the table covers again.
    fn covered(table: &[Mount]) -> Vec<&str> {
        let later = |index: usize| table[index + 1..].iter();
        let under = |outer: &str, inner: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let covered = table
            .iter()
            .enumerate()
            .filter(|(index, mount)| later(*index).any(|next| under(next.target, mount.target)));
        covered.map(|(_, mount)| mount.target).collect()
    }

    #[test]
    fn tables_no_mount_covers_an_earlier_one() {
        assert!(covered(MACHINE).is_empty());
        assert!(covered(APP).is_empty());
    }

    #[test]
    fn app_table_hides_nothing_that_it_mounts() {
        assert!(
            APP.iter()
                .all(|mount| !HIDDEN.iter().any(|hidden| mount.target.starts_with(hidden)))
        );
    }

    #[test]
    fn app_table_has_set_user_id_files_nowhere() {
        assert!(
            APP.iter()
                .all(|mount| mount.flags.contains(MountFlags::NOSUID))
        );
    }
}

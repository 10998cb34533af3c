//! The pod's cgroup, `/sys/fs/cgroup/apps` as PID 1 sees it, and below it each app's, which is the root of the tree for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guest_init::protocol::{self, Limits};

/// The tree of cgroups that PID 1 sees whole.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The cgroup of all apps.
const APPS: &str = "/sys/fs/cgroup/apps";

/// Disks whose use is limited, by name: images and scratch.
const DISKS: [&str; 2] = ["vda", "vdb"];

/// Over which CPU time is counted, microseconds; a thousandth of a CPU is a tenth of a millisecond of it.
const PERIOD_US: u32 = 100_000;

/// Makes the cgroup of all apps, with the pod's limits and every controller that the kernel has.
pub fn make_for_pod(limits: &Limits) -> Result<()> {
    delegate_controllers(CGROUPS)?;
    make(Path::new(APPS), limits)?;
    delegate_controllers(APPS)
}

fn delegate_controllers(cgroup: &str) -> Result<()> {
    let known = fs::read_to_string(format!("{cgroup}/cgroup.controllers"))
        .with_context(|| format!("read the controllers of cgroup {cgroup}"))?;
    let all: String = known
        .split_whitespace()
        .map(|controller| format!("+{controller} "))
        .collect();
    fs::write(format!("{cgroup}/cgroup.subtree_control"), &all)
        .with_context(|| format!("delegate the controllers {all}of cgroup {cgroup}"))
}

fn make(folder: &Path, limits: &Limits) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make cgroup {}", folder.display()))?;
    let disks = disk_max(limits).map(|max| DISKS.map(|disk| (disk, max.clone())));
    let mut files = self::files(limits);
    for (disk, max) in disks.into_iter().flatten() {
        // A machine without a scratch disk has nothing to limit there.
        if let Ok(device) = fs::read_to_string(format!("/sys/block/{disk}/dev")) {
            files.push(("io.max", format!("{} {max}", device.trim())));
        }
    }
    for (file, value) in files {
        fs::write(folder.join(file), &value)
            .with_context(|| format!("write {value:?} to {file} of cgroup {}", folder.display()))?;
    }
    Ok(())
}

/// A cgroup, there until it is removed.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the cgroup of `app`, with its limits.
    pub fn make(app: &protocol::App) -> Result<Self> {
        let folder = PathBuf::from(APPS).join(&app.name);
        make(&folder, &app.limits)?;
        Ok(Self(folder))
    }

    /// Moves the calling process into it.
    pub fn join(&self) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0")
            .with_context(|| format!("join cgroup {}", self.0.display()))
    }

    /// Whether the kernel has killed a process in it because its memory was used up.
    pub fn memory_exceeded(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        events
            .lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count != "0")
    }

    /// Kills every process in it.
    pub fn kill(&self) {
        // It can fail only for a cgroup that is gone.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// Removes it; one whose last processes are still dying stays, empty, and serves an app of the same name.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The files of a cgroup that hold limits, and what they say.
fn files(limits: &Limits) -> Vec<(&'static str, String)> {
    let files = [
        ("cpu.max", limits.cpu_milli.map(cpu_max)),
        (
            "cpu.weight",
            limits.cpu_weight.map(|weight| weight.to_string()),
        ),
        (
            "memory.max",
            limits.memory_bytes.map(|bytes| bytes.to_string()),
        ),
        (
            "pids.max",
            limits.processes.map(|processes| processes.to_string()),
        ),
    ];
    let given = files.into_iter();
    given
        .filter_map(|(file, value)| Some((file, value?)))
        .collect()
}

/// What io.max says of a disk; `None` = nothing.
fn disk_max(limits: &Limits) -> Option<String> {
    let Limits {
        disk_bytes,
        disk_operations,
        ..
    } = limits;
    let bytes = disk_bytes.map(|bytes| format!("rbps={bytes} wbps={bytes}"));
    let operations = disk_operations.map(|count| format!("riops={count} wiops={count}"));
    let parts: Vec<_> = bytes.into_iter().chain(operations).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// What cpu.max says of a limit in thousandths of a CPU.
fn cpu_max(milli: u32) -> String {
    format!("{} {PERIOD_US}", milli.saturating_mul(PERIOD_US / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_max_names_what_is_limited() {
        let mut limits = Limits::default();
        assert_eq!(disk_max(&limits), None);
        limits.disk_operations = Some(5);
        assert_eq!(disk_max(&limits).as_deref(), Some("riops=5 wiops=5"));
        limits.disk_bytes = Some(1 << 20);
        let both = "rbps=1048576 wbps=1048576 riops=5 wiops=5";
        assert_eq!(disk_max(&limits).as_deref(), Some(both));
    }

    #[test]
    fn cpu_max_is_the_share_of_a_period() {
        assert_eq!(cpu_max(1500), "150000 100000");
        assert_eq!(cpu_max(10), "1000 100000");
    }
}

//! The pod's cgroup, `/sys/fs/cgroup/apps` as PID 1 sees it, and below it each app's, which is the root of the tree for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guest_init::cgroup_files;
use guest_init::protocol::{self, Limits};

/// The tree of cgroups that PID 1 sees whole.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The cgroup of all apps.
const APPS: &str = "/sys/fs/cgroup/apps";

/// Disks whose use is limited, by name: images and scratch.
const DISKS: [&str; 2] = ["vda", "vdb"];

/// Makes the cgroup of all apps, and gives it every controller that the kernel has.
pub fn prepare() -> Result<()> {
    delegate_controllers(CGROUPS)?;
    fs::create_dir_all(APPS).with_context(|| format!("make cgroup {APPS}"))?;
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

/// Limits what all apps use together.
pub fn limit_pod(limits: &Limits) -> Result<()> {
    limit(Path::new(APPS), limits)
}

fn limit(folder: &Path, limits: &Limits) -> Result<()> {
    // A machine without a scratch disk has nothing to limit there.
    let number = |disk: &&str| fs::read_to_string(format!("/sys/block/{disk}/dev")).ok();
    let limited = DISKS.iter().filter(|_| limits.are_of_disks());
    let disks = limited.filter_map(number);
    let disks: Vec<_> = disks.map(|number| number.trim().to_owned()).collect();
    for (file, value) in cgroup_files(limits, &disks) {
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
        fs::create_dir_all(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
        limit(&folder, &app.limits)?;
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

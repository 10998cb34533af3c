//! An app's cgroup: `/sys/fs/cgroup/APP` as PID 1 sees it, the root of the tree as the app does.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use guest_init::protocol::{self, Limits};

use crate::machine::CGROUPS;

/// Over which CPU time is counted, microseconds; a thousandth of a CPU is a tenth of a millisecond of it.
const PERIOD_US: u32 = 100_000;

/// A cgroup, there until it is removed.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the cgroup of `app`, with its limits.
    pub fn make(app: &protocol::App) -> Result<Self> {
        let folder = PathBuf::from(CGROUPS).join(&app.name);
        fs::create_dir_all(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
        for (file, value) in limits(&app.limits) {
            fs::write(folder.join(file), &value).with_context(|| {
                format!("write {value:?} to {file} of cgroup {}", folder.display())
            })?;
        }
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
fn limits(limits: &Limits) -> Vec<(&'static str, String)> {
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

/// What cpu.max says of a limit in thousandths of a CPU.
fn cpu_max(milli: u32) -> String {
    format!("{} {PERIOD_US}", milli.saturating_mul(PERIOD_US / 1000))
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_max_is_the_share_of_a_period() {
        assert_eq!(super::cpu_max(1500), "150000 100000");
        assert_eq!(super::cpu_max(10), "1000 100000");
    }
}

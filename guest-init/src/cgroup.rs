//! An app's cgroup: `/sys/fs/cgroup/APP` as PID 1 sees it, the root of the tree as the app does.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use guest_init::protocol;

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
        if let Some(milli) = app.cpu_milli {
            fs::write(folder.join("cpu.max"), cpu_max(milli))
                .with_context(|| format!("limit the CPUs of cgroup {}", folder.display()))?;
        }
        Ok(Self(folder))
    }

    /// Moves the calling process into it.
    pub fn join(&self) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0")
            .with_context(|| format!("join cgroup {}", self.0.display()))
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

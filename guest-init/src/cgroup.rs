//! An app's cgroup: `/sys/fs/cgroup/APP` as PID 1 sees it, the root of the tree as the app does.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::machine::CGROUPS;

/// A cgroup, there until it is removed.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the cgroup of `app`.
    pub fn make(app: &str) -> Result<Self> {
        let folder = PathBuf::from(CGROUPS).join(app);
        fs::create_dir_all(&folder).with_context(|| format!("make cgroup {}", folder.display()))?;
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

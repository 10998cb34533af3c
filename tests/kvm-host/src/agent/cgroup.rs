//! One control group per command, so that all of it can be killed at once, whatever it forked.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Gives every controller to the root's children, as an init system would.
pub fn enable_controllers() -> Result<()> {
    let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"))
        .context("read cgroup controllers")?;
    for controller in controllers.split_whitespace() {
        let path = Path::new(ROOT).join("cgroup.subtree_control");
        fs::write(path, format!("+{controller}"))
            .with_context(|| format!("enable cgroup controller {controller}"))?;
    }
    Ok(())
}

/// The group of one command.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group of a port's command.
    pub fn create(port: usize, serial: u64) -> Result<Self> {
        let path = Path::new(ROOT).join(format!("on-kvm/{port}-{serial}"));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// A descriptor that takes a process in when "0" is written to it by that process.
    pub fn entrance(&self) -> Result<OwnedFd> {
        let path = self.path.join("cgroup.procs");
        let file = File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(file.into())
    }

    /// Kills everything in the group.
    pub fn kill(&self) -> Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1").context("kill a command's cgroup")
    }

    /// Removes the group; one that still has processes stays.
    pub fn remove(self) {
        let _ = fs::remove_dir(&self.path);
    }

    /// Removes the group of killed processes as soon as the last is gone.
    pub fn remove_killed(self) {
        let start = Instant::now();
        while fs::remove_dir(&self.path).is_err() && start.elapsed() < KILL_DEADLINE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

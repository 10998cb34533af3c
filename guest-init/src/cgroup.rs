//! The pod's cgroup, `/sys/fs/cgroup/apps` as PID 1 sees it, and below it each app's, which is the root of the tree for it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use guest_init::protocol::{self, Limits};
use guest_init::{cgroup_files, oom_kills};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::device_rule;

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
    delegate_controllers(APPS)?;
    // Here, where no app can take it off.
    File::open(APPS)
        .and_then(|apps| device_rule::attach(&apps))
        .context("forbid apps the machine's disks")
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

/// Moves the calling process into the cgroup whose list of `processes` that is.
pub fn join(processes: &mut File) -> Result<()> {
    processes.write_all(b"0").context("join the app's cgroup")
}

/// A cgroup, there until it is removed.
pub struct Cgroup {
    folder: PathBuf,
    /// Processes that the kernel had killed in it before.
    killed_before: u64,
}

impl Cgroup {
    /// Makes the cgroup of `app`, with its limits.
    pub fn make(app: &protocol::App) -> Result<Self> {
        let mut cgroup = Self::of(&app.name);
        // What an app of the name left there below, and its limits.
        let _ = cgroup.remove();
        let folder = &cgroup.folder;
        fs::create_dir_all(folder).with_context(|| format!("make cgroup {}", folder.display()))?;
        limit(folder, &app.limits)?;
        cgroup.killed_before = oom_kills(&cgroup.folder);
        Ok(cgroup)
    }

    /// The cgroup of the app `name`, which need not be there.
    pub fn of(name: &str) -> Self {
        Self {
            folder: PathBuf::from(APPS).join(name),
            killed_before: 0,
        }
    }

    /// Waits for the death of all processes in it that have been killed, which until then hold what they had mounted.
    pub fn wait_until_empty(&self) -> Result<()> {
        let Ok(mut events) = File::open(self.folder.join("cgroup.events")) else {
            return Ok(());
        };
        loop {
            let mut text = String::new();
            events
                .rewind()
                .and_then(|()| events.read_to_string(&mut text))
                .with_context(|| format!("read the events of cgroup {}", self.folder.display()))?;
            if text.lines().any(|line| line == "populated 0") {
                return Ok(());
            }
            let mut changed = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            poll(&mut changed, PollTimeout::NONE).context("wait for a cgroup")?;
        }
    }

    /// Moves the calling process into it.
    pub fn join(&self) -> Result<()> {
        join(&mut self.processes()?)
    }

    /// The list of its processes, for [`join`] when it can be named no more.
    pub fn processes(&self) -> Result<File> {
        let list = File::options()
            .write(true)
            .open(self.folder.join("cgroup.procs"));
        list.with_context(|| format!("open the processes of cgroup {}", self.folder.display()))
    }

    /// Whether the kernel has killed a process in it because its memory was used up.
    pub fn memory_exceeded(&self) -> bool {
        oom_kills(&self.folder) > self.killed_before
    }

    /// Kills every process in it.
    pub fn kill(&self) {
        // It can fail only for a cgroup that is gone.
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
    }

    /// Removes it with what the app has made below it; what has living processes stays.
    pub fn remove(&self) -> Result<()> {
        remove_tree(&self.folder)
            .with_context(|| format!("remove cgroup {}", self.folder.display()))
    }
}

/// The folders of a cgroup are all that can be removed of it, from the innermost on.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

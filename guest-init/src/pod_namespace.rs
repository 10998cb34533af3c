//! The PID namespace that all apps of the pod share, and its first process, which reaps their orphans.
//!
//! Apps live in it so that their `reboot` or `kill -1` ends at most the namespace, never the machine. They are PID 1's
//! own children all the same, which is how it learns their status. A namespace that was ended so is made anew for the next app.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use crate::process;

/// The namespace.
pub struct PodNamespace {
    machine: File,
    reaper: Option<Pid>,
}

impl PodNamespace {
    /// Knows the machine's own namespace; the pod's is made for the first app.
    pub fn new() -> Result<Self> {
        let machine =
            File::open("/proc/self/ns/pid").context("open the machine's PID namespace")?;
        Ok(Self {
            machine,
            reaper: None,
        })
    }

    /// Sees to it that the next child is born in a living pod namespace.
    pub fn ensure(&mut self) -> Result<()> {
        if self.reaper.is_some() {
            return Ok(());
        }
        setns(&self.machine, CloneFlags::CLONE_NEWPID)
            .context("return to the machine's PID namespace")?;
        unshare(CloneFlags::CLONE_NEWPID).context("make the pod's PID namespace")?;
        match process::split().context("start the pod's first process")? {
            Some(reaper) => self.reaper = Some(reaper),
            None => reap_for_ever(),
        }
        Ok(())
    }

    /// Does what makes a child that is not to be born in it, but in the machine's own.
    pub fn beside<T>(&mut self, act: impl FnOnce() -> T) -> Result<T> {
        let pods =
            File::open("/proc/self/ns/pid_for_children").context("open the pod's PID namespace")?;
        setns(&self.machine, CloneFlags::CLONE_NEWPID)
            .context("return to the machine's PID namespace")?;
        let done = act();
        if setns(&pods, CloneFlags::CLONE_NEWPID).is_err() {
            // Then the next app gets a new one.
            self.reaper = None;
        }
        Ok(done)
    }

    /// Takes note of a child's death.
    pub fn died(&mut self, pid: Pid) {
        self.reaper = self.reaper.filter(|reaper| *reaper != pid);
    }
}

/// The namespace's first process: holds nothing of PID 1's, and cannot be looked into.
fn reap_for_ever() -> ! {
    process::close_everything();
    let _ = nix::sys::prctl::set_name(c"pod");
    let _ = nix::sys::prctl::set_dumpable(false);
    process::reap_orphans()
}

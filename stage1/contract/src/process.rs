//! The process of a running pod, held so that a signal reaches no other, should its number become another's.

use std::fs::{self, File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::PodDir;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The process.
#[derive(Debug)]
pub struct PodProcess {
    pid: Pid,
    process: OwnedFd,
}

/// Whether somebody holds the lock of the pod at `directory`.
///
/// # Errors
/// When that cannot be told.
pub fn is_running(directory: &Path) -> Result<bool> {
    let lock = File::open(directory)
        .with_context(|| format!("open the pod directory {}", directory.display()))?;
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).context("test the pod's lock"),
    }
}

impl PodProcess {
    /// Process `pid` of the pod at `directory`.
    ///
    /// # Errors
    /// When the pod does not run any more.
    pub fn open(directory: &Path, pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1);
        let pid = pid.and_then(Pid::from_raw);
        let pid = pid.context("the pod's pid file names no process of a pod")?;
        let process = pidfd_open(pid, PidfdFlags::empty());
        let process = process.with_context(|| format!("look for the pod's process {pid}"))?;
        // The process holds the lock as long as it lives. Who else holds it has it for moments, to remove the pod.
        ensure!(is_running(directory)?, "the pod does not run any more");
        Ok(Self { pid, process })
    }

    /// The process whose number is in the `pid` file of the pod at `directory`.
    ///
    /// # Errors
    /// When there is none, or the pod does not run any more.
    pub fn of_pod(directory: &Path) -> Result<Self> {
        let path = PodDir::new(directory).pid();
        let text =
            fs::read_to_string(path).context("read the pod's pid file; has the pod started?")?;
        let pid = text.trim().parse();
        Self::open(
            directory,
            pid.with_context(|| format!("read pid {text:?}"))?,
        )
    }

    /// Sends it a signal, by number.
    ///
    /// # Errors
    /// When it has ended, belongs to another user, or there is no such signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let named = Signal::from_named_raw(signal);
        let named = named.with_context(|| format!("signal {signal} is not for a pod's process"))?;
        pidfd_send_signal(&self.process, named)
            .with_context(|| format!("send signal {signal} to the pod's process {}", self.pid))
    }
}

impl AsFd for PodProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

//! What stage 1 tells stage 0 through files in the pod directory: `pid`, and under `rkt/` statuses and readiness.
//!
//! `pid` is written while the process still sees the host's files; everything under `rkt/` from inside the jail, through a
//! descriptor of a mount of that folder alone: no name there leads out of it, and no name of a file server's into it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use contract::PodDir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::symlinkat;

use crate::log::Log;

/// Symbolic link in the `rkt` folder that says that the apps run.
const SUPERVISOR_STATUS: &str = "supervisor-status";

/// Writes `pid`, which tells stage 0 that the pod has a process to look at.
///
/// # Errors
/// Those of the file system.
pub fn write_pid(pod: &PodDir) -> Result<()> {
    let path = pod.pid();
    fs::write(&path, format!("{}\n", std::process::id()))
        .with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("chmod {}", path.display()))
}

/// Gives all that the pod's process, which has ended, could make to the owner of the pod's directory, the working directory.
///
/// # Errors
/// Those of the file system.
pub fn take_over(pod: &PodDir) -> Result<()> {
    let folder = pod.report();
    let taken = fs::metadata(".").and_then(|owner| give(&folder, &owner));
    match taken {
        // It was never made, or is deleted already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("take {} from the pod's uid", folder.display())),
    }
}

fn give(path: &Path, owner: &fs::Metadata) -> io::Result<()> {
    lchown(path, Some(owner.uid()), Some(owner.gid()))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

/// Opens a file of the `rkt` folder to write into it, by `way`; it is made if it is not there, and no link is followed.
///
/// # Errors
/// Those of the file system.
pub fn open(folder: &OwnedFd, path: &str, way: OFlag, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(mode);
    Ok(openat(folder, path, flags | way, mode)?.into())
}

/// The `rkt` folder, seen by whoever may write it.
#[derive(Clone)]
pub struct Report {
    folder: Arc<OwnedFd>,
}

impl Report {
    /// Makes the folder and the `status` and `log` folders in it and gives them to `owner` (uid and gid), or leaves them as they are.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn prepare(pod: &PodDir, owner: Option<u32>) -> Result<()> {
        for folder in [pod.report(), pod.status(), pod.logs()] {
            let context = || format!("prepare {}", folder.display());
            fs::create_dir_all(&folder).with_context(context)?;
            chown(&folder, owner, owner).with_context(context)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o750))
                .with_context(context)?;
        }
        Ok(())
    }

    /// The folder behind a descriptor.
    pub fn new(folder: OwnedFd) -> Self {
        Self {
            folder: Arc::new(folder),
        }
    }

    /// Begins the log of an app, for its several streams.
    pub fn log(&self, app: &str) -> Arc<Mutex<Log>> {
        let log = Log::new(Arc::clone(&self.folder), app);
        Arc::new(Mutex::new(log))
    }

    /// Says that the apps run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn ready(&self) -> Result<()> {
        match symlinkat("ready", &*self.folder, SUPERVISOR_STATUS) {
            Err(Errno::EEXIST) => Ok(()),
            result => result.context("make rkt/supervisor-status in the pod directory"),
        }
    }

    /// Records an app's exit code, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn status(&self, app: &str, code: u8) -> Result<()> {
        self.record(&format!("status/.{app}"), &format!("status/{app}"), code)
            .with_context(|| format!("record exit code of app {app:?}"))
    }

    /// Records the pod's exit code, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn exit_code(&self, code: u8) -> Result<()> {
        self.record(".exit-code", "exit-code", code)
            .context("record the pod's exit code")
    }

    fn record(&self, temporary: &str, path: &str, code: u8) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = open(&self.folder, temporary, OFlag::O_TRUNC, 0o644)?;
            file.write_all(format!("{code}\n").as_bytes())?;
            Ok(renameat(&*self.folder, temporary, &*self.folder, path)?)
        };
        write().with_context(|| format!("write rkt/{path} in the pod directory"))
    }
}

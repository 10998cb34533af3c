//! What stage 1 tells stage 0 through files in the pod directory: `pid`, and under `rkt/` statuses and readiness.
//!
//! `pid` is written while the process still sees the host's files; everything under `rkt/` from inside the jail, where
//! that folder is the only one.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use contract::PodDir;

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

/// The `rkt` folder, seen by whoever may write it.
pub struct Report {
    folder: PathBuf,
}

impl Report {
    /// Makes the folder and its `status` folder and gives both to `owner` (uid and gid), or leaves them as they are.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn prepare(pod: &PodDir, owner: Option<u32>) -> Result<()> {
        for folder in [pod.report(), pod.status()] {
            let context = || format!("prepare {}", folder.display());
            fs::create_dir_all(&folder).with_context(context)?;
            chown(&folder, owner, owner).with_context(context)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o750))
                .with_context(context)?;
        }
        Ok(())
    }

    /// The folder as it is called where this process now is.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// Says that the apps run.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn ready(&self) -> Result<()> {
        let link = self.folder.join("supervisor-status");
        match symlink("ready", &link) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.with_context(|| format!("make {}", link.display())),
        }
    }

    /// Records an app's exit code, whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn status(&self, app: &str, code: u8) -> Result<()> {
        let folder = self.folder.join("status");
        let temporary = folder.join(format!(".{app}"));
        let write = |path: &Path| {
            fs::write(path, format!("{code}\n"))?;
            fs::rename(path, folder.join(app))
        };
        write(&temporary)
            .with_context(|| format!("record exit code of app {app:?} in {}", folder.display()))
    }
}

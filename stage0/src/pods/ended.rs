//! The exit codes of a pod and its apps, in a folder that belongs to the pod's confined process: whatever that put there is read
//! without following links, waiting or taking more than a number's length. Used by the reports of `list` and `status`. Beside
//! them lie stage 0's own marks of the apps of a mutable pod (contract section 1.7).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use anyhow::{Context, Result};
use contract::PodDir;
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// More than the decimal digits of any exit code and a newline, in bytes.
const MAX_BYTES: u64 = 16;

/// How an app or a pod ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code.
    pub(super) exit_code: i32,
    /// When that was written.
    pub(super) written: Option<SystemTime>,
}

impl Ended {
    /// Reads the status of an app; `None` while it has none, or none that makes sense.
    pub(super) fn of_app(dir: &PodDir, app: &str) -> Option<Self> {
        Self::read(open_folder(dir, "status").ok()?, app)
    }

    /// Reads the exit code of the pod, likewise.
    pub(super) fn of_pod(dir: &PodDir) -> Option<Self> {
        Self::read(open_report(dir).ok()?, dir.exit_code().file_name()?)
    }

    fn read(folder: OwnedFd, name: &(impl NixPath + ?Sized)) -> Option<Self> {
        // A FIFO without a writer is not waited for, a terminal does not become ours.
        let flags = LINKS_ARE_NONE
            .union(OFlag::O_NONBLOCK)
            .union(OFlag::O_NOCTTY);
        let file = File::from(openat(folder, name, flags, Mode::empty()).ok()?);
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        Some(Self {
            exit_code: text.trim().parse().ok()?,
            written: metadata.modified().ok(),
        })
    }
}

/// A mark of stage 0's on an app of a mutable pod.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// It was added.
    Created,
    /// It was started, since it last ended.
    Started,
}

impl Mark {
    fn file(self, app: &str) -> String {
        match self {
            Self::Created => format!("{app}-created"),
            Self::Started => format!("{app}-started"),
        }
    }

    /// Whether the app has it.
    pub(super) fn is_on(self, dir: &PodDir, app: &str) -> bool {
        let found = open_folder(dir, "status")
            .and_then(|status| fstatat(status, &*self.file(app), AtFlags::AT_SYMLINK_NOFOLLOW));
        found.is_ok()
    }

    /// Marks the app.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put(self, dir: &PodDir, app: &str) -> Result<()> {
        write(dir, "status", &self.file(app), b"").with_context(|| format!("mark app {app}"))
    }
}

/// The exit code of an app that has ended.
pub fn exit_code(dir: &PodDir, app: &str) -> Option<i32> {
    Ended::of_app(dir, app).map(|ended| ended.exit_code)
}

/// Forgets how an app ended.
///
/// # Errors
/// Those of the file system.
pub fn forget_status(dir: &PodDir, app: &str) -> Result<()> {
    remove(dir, "status", app)
}

/// Forgets all that is known of an app: how it ended, its marks, environment and logs.
///
/// # Errors
/// Those of the file system.
pub fn forget(dir: &PodDir, app: &str) -> Result<()> {
    for mark in [Mark::Created, Mark::Started] {
        remove(dir, "status", &mark.file(app))?;
    }
    for (folder, file) in [
        ("status", app),
        ("env", app),
        ("log", app),
        ("log", &format!("{app}.1")),
    ] {
        remove(dir, folder, file)?;
    }
    Ok(())
}

fn remove(dir: &PodDir, folder: &str, file: &str) -> Result<()> {
    let removed = open_folder(dir, folder)
        .and_then(|folder| unlinkat(folder, file, UnlinkatFlags::NoRemoveDir));
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove rkt/{folder}/{file} of the pod")),
    }
}

/// Writes a file of an app into a folder of the report folder, new; the folder is made where it is missing.
///
/// # Errors
/// Those of the file system.
pub fn write(dir: &PodDir, folder: &str, file: &str, text: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        match mkdirat(open_report(dir)?, folder, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        remove(dir, folder, file)?;
        let flags = LINKS_ARE_NONE | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let folder = open_folder(dir, folder)?;
        let file = openat(folder, file, flags, Mode::from_bits_truncate(0o640))?;
        Ok(File::from(file).write_all(text)?)
    };
    write().with_context(|| format!("write rkt/{folder}/{file} of the pod"))
}

/// Names are opened step by step, as any name below the report's folder may have become a link.
const LINKS_ARE_NONE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);
const FOLDER: OFlag = LINKS_ARE_NONE.union(OFlag::O_DIRECTORY);

fn open_report(dir: &PodDir) -> nix::Result<OwnedFd> {
    open(&dir.report(), FOLDER, Mode::empty())
}

fn open_folder(dir: &PodDir, name: &str) -> nix::Result<OwnedFd> {
    openat(open_report(dir)?, name, FOLDER, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn pod() -> Result<(tempfile::TempDir, PodDir)> {
        let folder = tempfile::tempdir()?;
        let dir = PodDir::new(folder.path().to_owned());
        fs::create_dir_all(dir.status())?;
        Ok((folder, dir))
    }

    #[test]
    fn status_of_an_app_that_ended_is_its_code() -> Result<()> {
        let (_folder, dir) = pod()?;
        fs::write(dir.app_status("app"), "137\n")?;
        let status = Ended::of_app(&dir, "app").expect("a status");
        assert_eq!(status.exit_code, 137);
        assert!(status.written.is_some());
        assert!(Ended::of_app(&dir, "other").is_none());
        assert!(Ended::of_pod(&dir).is_none());
        fs::write(dir.exit_code(), "124\n")?;
        assert_eq!(Ended::of_pod(&dir).map(|ended| ended.exit_code), Some(124));
        Ok(())
    }

    #[test]
    fn status_that_is_no_small_file_is_none() -> Result<()> {
        let (_folder, dir) = pod()?;
        let code = dir.path().join("code");
        fs::write(&code, "7\n")?;
        symlink(&code, dir.app_status("link"))?;
        nix::unistd::mkfifo(&dir.app_status("fifo"), Mode::S_IRUSR)?;
        fs::create_dir(dir.app_status("folder"))?;
        fs::write(
            dir.app_status("long"),
            format!("{}7\n", "0".repeat(1 << 20)),
        )?;
        fs::write(dir.app_status("padded"), format!("{}7\n", " ".repeat(64)))?;
        for app in ["link", "fifo", "folder", "padded"] {
            assert!(Ended::of_app(&dir, app).is_none(), "{app}");
        }
        assert_eq!(
            Ended::of_app(&dir, "long").map(|status| status.exit_code),
            Some(0),
            "only the first bytes count"
        );
        Ok(())
    }

    #[test]
    fn status_folder_that_became_a_link_is_not_followed() -> Result<()> {
        let (_folder, dir) = pod()?;
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere)?;
        fs::write(elsewhere.join("app"), "7\n")?;
        fs::remove_dir(dir.status())?;
        symlink(&elsewhere, dir.status())?;
        assert!(Ended::of_app(&dir, "app").is_none());
        assert!(Mark::Created.put(&dir, "app").is_err() && forget(&dir, "app").is_err());
        assert_eq!(fs::read(elsewhere.join("app"))?, b"7\n");
        Ok(())
    }

    #[test]
    fn marks_are_put_and_forgotten_and_take_the_place_of_links() -> Result<()> {
        let (_folder, dir) = pod()?;
        let victim = dir.path().join("victim");
        fs::write(&victim, "x")?;
        symlink(&victim, dir.app_status("app-started"))?;
        for mark in [Mark::Created, Mark::Started] {
            mark.put(&dir, "app")?;
            assert!(mark.is_on(&dir, "app"));
        }
        assert_eq!(fs::read(&victim)?, b"x");
        write(&dir, "env", "app", b"A=b\n")?;
        assert_eq!(fs::read(dir.report().join("env/app"))?, b"A=b\n");
        fs::write(dir.app_status("app"), "7\n")?;
        forget_status(&dir, "app")?;
        assert!(!dir.app_status("app").exists() && Mark::Started.is_on(&dir, "app"));
        forget(&dir, "app")?;
        let marks = [Mark::Created, Mark::Started];
        assert!(marks.iter().all(|mark| !mark.is_on(&dir, "app")));
        assert!(!dir.report().join("env/app").exists());
        Ok(())
    }
}

//! The exit codes of a pod and its apps, in a folder that belongs to the pod's confined process: whatever that put there is read
//! without following links, waiting or taking more than a number's length. Used by the reports of `list` and `status`.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use contract::PodDir;
use nix::NixPath;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

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
        let status = openat(open_report(dir).ok()?, "status", FOLDER, Mode::empty());
        Self::read(status.ok()?, app)
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

/// Names are opened step by step, as any name below the report's folder may have become a link.
const LINKS_ARE_NONE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);
const FOLDER: OFlag = LINKS_ARE_NONE.union(OFlag::O_DIRECTORY);

fn open_report(dir: &PodDir) -> nix::Result<OwnedFd> {
    open(&dir.report(), FOLDER, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;
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
        Ok(())
    }
}

//! Every pod of a data directory: made, listed and found by UUID (contract sections 1.8 and 1.9).

mod ended;
mod pod;
mod release;
mod remove;
mod report;
mod state;
mod story;
mod sweep;

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use uuid::Uuid;

pub use ended::{Mark, exit_code, forget, forget_status, write as write_report};
pub use pod::{Lock, Pod};
pub use release::release_exited;
pub use remove::{remove, remove_ended, remove_once_exited};
pub use report::{AppReport, Report};
pub use state::{Folder, State};
pub use story::{Event, events};
pub use sweep::sweep;

/// Mode of every directory made here; files are 0640.
pub const DIRECTORY_MODE: u32 = 0o750;

/// Version of the layout below `pods/`, written to `pods/format`.
const FORMAT: &str = "1\n";

/// The folder `pods/` of a data directory.
#[derive(Clone, Debug)]
pub struct Pods {
    dir: PathBuf,
}

impl Pods {
    /// Where they lie.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Opens `pods/` in the data directory, making it if needed.
    ///
    /// # Errors
    /// If it cannot be made, or a newer version of fairing has laid it out.
    pub fn open(data: &Path) -> Result<Self> {
        let dir = data.join("pods");
        make_directory(&dir)?;
        // As the kernel's table of mounts spells it.
        let dir = fs::canonicalize(&dir).with_context(|| format!("find {}", dir.display()))?;
        for folder in Folder::ALL {
            make_directory(&dir.join(folder.name()))?;
        }
        let format = dir.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text == FORMAT => {}
            Ok(text) => bail!(
                "{} says format {:?}, but this fairing knows only format {:?}; use the fairing that made it, or another --dir",
                format.display(),
                text.trim(),
                FORMAT.trim()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Whole or not at all: another command may read it in this moment.
                let written = dir.join(format!(".format-{}", std::process::id()));
                fs::write(&written, FORMAT)
                    .and_then(|()| fs::rename(&written, &format))
                    .with_context(|| format!("write {}", format.display()))?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", format.display()));
            }
        }
        Ok(Self { dir })
    }

    /// A new pod in `embryo`, its lock held.
    ///
    /// # Errors
    /// If the directory cannot be made or locked.
    pub fn create(&self) -> Result<(Pod, Lock)> {
        // A sweep by another command may take the directory for a dead process' one in the instant before it is locked.
        for _ in 0..16 {
            let pod = Pod::at(&self.dir, Folder::Embryo, Uuid::new_v4());
            DirBuilder::new()
                .mode(DIRECTORY_MODE)
                .create(pod.path())
                .with_context(|| format!("make pod directory {}", pod.path().display()))?;
            if let Some(lock) = pod.try_lock()? {
                return Ok((pod, lock));
            }
        }
        bail!(
            "make a pod in {}: something keeps removing it",
            self.dir.display()
        )
    }

    /// The pods in one folder, in no order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_folder(&self, folder: Folder) -> Result<Vec<Pod>> {
        let path = self.dir.join(folder.name());
        let entries =
            fs::read_dir(&path).with_context(|| format!("list pods in {}", path.display()))?;
        let mut pods = Vec::new();
        for entry in entries {
            let name = entry
                .with_context(|| format!("list pods in {}", path.display()))?
                .file_name();
            if let Some(uuid) = name.to_str().and_then(|name| Uuid::parse_str(name).ok()) {
                pods.push(Pod::at(&self.dir, folder, uuid));
            }
        }
        Ok(pods)
    }

    /// Every pod.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn all(&self) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for folder in Folder::ALL {
            pods.extend(self.in_folder(folder)?);
        }
        Ok(pods)
    }

    /// The one pod whose UUID begins with `prefix`; pods in `embryo` and `garbage` do not count.
    ///
    /// # Errors
    /// If none or several match.
    pub fn find(&self, prefix: &str) -> Result<Pod> {
        let prefix = prefix.to_ascii_lowercase();
        if prefix.is_empty() {
            bail!("an empty pod UUID names no pod");
        }
        let mut found: Vec<_> = self
            .all()?
            .into_iter()
            .filter(|pod| !matches!(pod.folder(), Folder::Embryo | Folder::Garbage))
            .filter(|pod| pod.uuid().starts_with(&prefix))
            .collect();
        // A pod that moved on while the folders were read is seen twice.
        found.dedup_by(|later, earlier| later.uuid() == earlier.uuid());
        match (found.pop(), found.is_empty()) {
            (Some(pod), true) => Ok(pod),
            (None, _) => bail!(
                "no pod has a UUID that begins with {prefix:?} in {}; `fairing list` shows all pods",
                self.dir.display()
            ),
            (Some(_), false) => bail!(
                "{} pods have a UUID that begins with {prefix:?}; give more of it",
                found.len() + 1
            ),
        }
    }
}

/// Makes a directory and those above it with [`DIRECTORY_MODE`].
///
/// # Errors
/// If it cannot be made; under a path of root's the error says how to choose another.
pub fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .recursive(true)
        .create(path)
        .with_context(|| {
            format!(
                "make directory {} (--dir chooses another place)",
                path.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn pod_created_is_found_by_prefix_only_once_it_left_embryo() -> Result<()> {
        let data = tempfile::tempdir()?;
        let pods = Pods::open(data.path())?;
        let (mut pod, lock) = pods.create()?;
        assert_eq!(pod.state()?, State::Embryo);
        assert!(pods.find(&pod.uuid()[..8]).is_err());
        pod.move_to(Folder::Prepare, &lock)?;
        assert_eq!(pods.find(&pod.uuid()[..8])?.state()?, State::Preparing);
        drop(lock);
        assert_eq!(pod.state()?, State::AbortedPrepare);
        Ok(())
    }

    #[test]
    fn pod_behind_a_link_is_where_the_kernel_says() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&data, &link)?;
        let (pod, lock) = Pods::open(&link)?.create()?;
        let open = format!("/proc/self/fd/{}", lock.directory().as_raw_fd());
        assert_eq!(fs::read_link(open)?, pod.path());
        Ok(())
    }

    #[test]
    fn pods_of_another_format_are_refused() -> Result<()> {
        let data = tempfile::tempdir()?;
        Pods::open(data.path())?;
        fs::write(data.path().join("pods/format"), "2\n")?;
        assert!(Pods::open(data.path()).is_err());
        Ok(())
    }
}

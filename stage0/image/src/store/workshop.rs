//! A folder for work in progress, held by a lock for as long as its process lives.
//!
//! Every file of the store is made in one and renamed into place; so a process killed at any point leaves a folder
//! that nobody holds, which the next opening or import sweeps away. Two that want a workshop of one name take turns.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use nix::libc;

use super::lease::Lease;
use crate::held::is_at;

/// Mode of the store's folders.
pub const FOLDER_MODE: u32 = 0o750;

/// Tells the workshops of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// What is made lies in a folder of this name within the one that is locked: who waits for the workshop does not wait for those who
/// use what came out of it.
const MADE: &str = "made";

/// A folder of one's own.
pub struct Workshop {
    path: PathBuf,
    /// Keeps the lock.
    _folder: File,
}

impl Workshop {
    /// The workshop `name` in the folder `tmp`, empty; waits while another has it.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub fn enter(tmp: &Path, name: &str) -> Result<Self> {
        let path = tmp.join(name);
        let folder = hold(&path).with_context(|| format!("lock {}", path.display()))?;
        let workshop = Self {
            path,
            _folder: folder,
        };
        workshop.clear()?;
        Ok(workshop)
    }

    /// A workshop that nobody else asks for.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub fn unique(tmp: &Path) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self::enter(tmp, &format!("work-{}-{number}", std::process::id()))
    }

    /// The folder for what is made.
    pub fn path(&self) -> PathBuf {
        self.path.join(MADE)
    }

    /// The path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A new file in it, open for reading and writing, with `mode`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(&self, name: &str, mode: u32) -> Result<File> {
        let path = self.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))
    }

    /// A new file without a name, gone with its last descriptor.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn unlinked(&self, name: &str) -> Result<File> {
        let file = self.create(name, 0o600)?;
        let path = self.join(name);
        fs::remove_file(&path).with_context(|| format!("unlink {}", path.display()))?;
        Ok(file)
    }

    /// A new file in it with `content`, durable.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.create(name, 0o640)?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write {}", self.join(name).display()))
    }

    /// Renames the whole folder, its files durable already, to `target`, and keeps it there; `None` if there is one by now.
    ///
    /// # Errors
    /// If it cannot be renamed or made durable.
    pub fn deliver(self, target: &Path) -> Result<Option<Lease>> {
        let made = self.path();
        sync_folder(&made)?;
        let lease = Lease::share(&made)?.context("keep what was made")?;
        match fs::rename(&made, target) {
            Ok(()) => {}
            Err(error) if is_there(&error) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("rename into {}", target.display()));
            }
        }
        target.parent().map_or(Ok(()), sync_folder)?;
        Ok(Some(lease))
    }

    /// Renames the file `name` in it, durable already, over `target`.
    ///
    /// # Errors
    /// If it cannot be renamed or made durable.
    pub fn deliver_file(&self, name: &str, target: &Path) -> Result<()> {
        fs::rename(self.join(name), target)
            .with_context(|| format!("rename into {}", target.display()))?;
        target.parent().map_or(Ok(()), sync_folder)
    }

    fn clear(&self) -> Result<()> {
        let clear = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            DirBuilder::new().mode(FOLDER_MODE).create(self.path())
        };
        clear().with_context(|| format!("clear {}", self.path.display()))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// Makes the file at `target` hold `content`, whole and durable or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn replace(tmp: &Path, target: &Path, content: &[u8]) -> Result<()> {
    let write = || {
        let workshop = Workshop::unique(tmp)?;
        workshop.write("file", content)?;
        workshop.deliver_file("file", target)
    };
    write().with_context(|| format!("write {}", target.display()))
}

/// Removes from the folder `tmp` what no living process holds.
///
/// # Errors
/// If `tmp` cannot be read; a remnant that cannot be removed is only logged.
pub fn sweep(tmp: &Path) -> Result<()> {
    let entries = fs::read_dir(tmp).with_context(|| format!("read {}", tmp.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if let Err(error) = sweep_one(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("remove the remnant {}: {error}", path.display());
        }
    }
    Ok(())
}

fn sweep_one(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    let folder = open_folder(path)?;
    match folder.try_lock() {
        Ok(()) if is_at(&folder, path) => fs::remove_dir_all(path),
        Ok(()) | Err(fs::TryLockError::WouldBlock) => Ok(()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Makes the folder at `path` durable: the names in it.
///
/// # Errors
/// If it cannot be.
pub fn sync_folder(path: &Path) -> Result<()> {
    open_folder(path)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("make {} durable", path.display()))
}

/// Makes and locks a folder. Between the two a sweeper or its holder may remove it: then again.
fn hold(path: &Path) -> io::Result<File> {
    loop {
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = match open_folder(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            folder => folder?,
        };
        folder.lock()?;
        if is_at(&folder, path) {
            return Ok(folder);
        }
    }
}

/// Opens the folder at `path`, which is no link.
pub fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

fn is_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workshop_of_the_living_is_not_swept() {
        let tmp = tempfile::tempdir().unwrap();
        let workshop = Workshop::unique(tmp.path()).unwrap();
        fs::create_dir(tmp.path().join("dead")).unwrap();
        fs::write(tmp.path().join("dead/rootfs.erofs"), "half").unwrap();
        fs::write(tmp.path().join("stray"), "").unwrap();
        sweep(tmp.path()).unwrap();
        let left: Vec<_> = fs::read_dir(tmp.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(left, std::slice::from_ref(&workshop.path));
        drop(workshop);
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn remnant_of_the_same_name_is_cleared() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("x/sub")).unwrap();
        fs::write(tmp.path().join("x/rootfs.erofs"), "half").unwrap();
        let workshop = Workshop::enter(tmp.path(), "x").unwrap();
        assert!(workshop.create("rootfs.erofs", 0o600).is_ok());
    }

    #[test]
    fn who_waits_for_a_workshop_does_not_wait_for_users_of_what_came_of_it() {
        let tmp = tempfile::tempdir().unwrap();
        let workshop = Workshop::enter(tmp.path(), "x").unwrap();
        let (entered, entry) = std::sync::mpsc::channel();
        let path = tmp.path().to_owned();
        let waiter = std::thread::spawn(move || {
            entered.send(Workshop::enter(&path, "x").is_ok()).unwrap();
        });
        let lease = workshop.deliver(&tmp.path().join("made")).unwrap();
        let deadline = std::time::Duration::from_secs(60);
        assert!(entry.recv_timeout(deadline).unwrap() && lease.is_some());
        waiter.join().unwrap();
    }

    #[test]
    fn second_delivery_of_one_image_yields() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("image");
        for first in [true, false] {
            let workshop = Workshop::unique(tmp.path()).unwrap();
            workshop.create("file", 0o600).unwrap();
            assert_eq!(workshop.deliver(&target).unwrap().is_some(), first);
        }
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }
}

//! Blobs that were fetched, kept for the next image that has them: `ALGORITHM/HEX`, and `HEX.part` while one arrives.
//!
//! Used by many processes and threads at once. A blob is fetched by whoever holds the lock on its part; the others wait
//! and then find it. What a killed one leaves is a part whose lock is free: the next goes on where it ends. Who uses a
//! blob has a link of his own, so that one that is removed is only gone from here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use image::is_at;
use image::oci::Digest;
use nix::libc;

/// Mode of the folders.
const FOLDER_MODE: u32 = 0o750;

/// The ending of a blob that is not whole.
const PART: &str = "part";

/// A folder of blobs.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
}

/// A blob's file that is being filled, its lock held.
struct Part {
    path: PathBuf,
    file: File,
}

impl Blobs {
    /// The blobs in `dir`, made when one is fetched.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Links the blob `digest` of `size` bytes to `target`, and fills it by `fetch` if it is not here; two that want
    /// the same one fetch it once. A part of it that is here is given to `fetch` to go on with.
    ///
    /// # Errors
    /// If it cannot be fetched, or the folder not be written.
    pub(crate) fn link(
        &self,
        digest: &Digest,
        size: u64,
        target: &Path,
        fetch: impl FnOnce(&File) -> Result<()>,
    ) -> Result<()> {
        let path = self.path(digest);
        if take(&path, size, target)? {
            return Ok(());
        }
        let part = self.part(&path)?;
        // The one whose lock this was may have fetched it.
        if take(&path, size, target)? {
            return Ok(());
        }
        if let Err(error) = fetch(&part.file) {
            part.abandon(&error);
            return Err(error);
        }
        part.file
            .sync_data()
            .with_context(|| format!("make blob {digest} durable"))?;
        link(&part.path, target)?;
        fs::rename(&part.path, &path).with_context(|| format!("keep blob {}", path.display()))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let path = digest.blob_path();
        self.dir.join(path.trim_start_matches("blobs/"))
    }

    /// The part of the blob at `path`, once nobody else has it.
    fn part(&self, path: &Path) -> Result<Part> {
        let folder = path.parent().unwrap_or(&self.dir);
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .with_context(|| format!("create {}", folder.display()))?;
        let path = path.with_extension(PART);
        let file = hold(&path).with_context(|| format!("lock {}", path.display()))?;
        Ok(Part { path, file })
    }

    /// Takes blobs out that nobody needs, or that turned out to be damaged; who has a link keeps it.
    pub fn forget(&self, digests: impl IntoIterator<Item = Digest>) {
        for digest in digests {
            let path = self.path(&digest);
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::warn!("remove blob {}: {error}", path.display());
            }
        }
    }

    /// Removes those used longest ago until no more than `limit_bytes` are left; those that somebody uses stay.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn trim(&self, limit_bytes: u64) -> Result<()> {
        let mut kept = self.kept()?;
        kept.sort_by_key(|(used, ..)| *used);
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in kept {
            if total <= limit_bytes {
                break;
            }
            if drop_one(&path) {
                total = total.saturating_sub(bytes);
            }
        }
        Ok(())
    }

    /// Removes those that were not used for so long; those that somebody uses stay.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn collect(&self, idle: Duration) -> Result<()> {
        let now = SystemTime::now();
        for (used, _, path) in self.kept()? {
            if now.duration_since(used).is_ok_and(|since| since >= idle) {
                drop_one(&path);
            }
        }
        Ok(())
    }

    /// All blobs and parts: when they were used last, the bytes they take, where they are.
    fn kept(&self) -> Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut kept = Vec::new();
        for folder in ["sha256", "sha512"] {
            let folder = self.dir.join(folder);
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("read {}", folder.display()));
                }
            };
            for entry in entries.flatten() {
                if let Ok(metadata) = entry.metadata() {
                    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    kept.push((used, metadata.blocks() * 512, entry.path()));
                }
            }
        }
        Ok(kept)
    }
}

impl Part {
    /// What there is of it stays for the next attempt, but not where there is no room for anything.
    fn abandon(&self, error: &anyhow::Error) {
        let full = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| {
                matches!(
                    cause.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                )
            });
        let empty = self
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.len() == 0);
        if full || empty {
            // It is swept with the others if it cannot be removed now.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Links the blob at `path` to `target`, if it is there and whole.
fn take(path: &Path, size: u64, target: &Path) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let metadata = file
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?;
    if metadata.len() != size {
        return Ok(false);
    }
    // Only the order in which blobs are removed hangs on it.
    let _ = file.set_modified(SystemTime::now());
    match link(path, target) {
        Err(error) if is_gone(&error) => Ok(false),
        linked => linked.map(|()| true),
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
}

fn link(path: &Path, target: &Path) -> Result<()> {
    match fs::hard_link(path, target) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => {
            linked.with_context(|| format!("link {} to {}", path.display(), target.display()))
        }
    }
}

/// Removes a blob that nobody has a link of, or a part that nobody fills; whether it did.
fn drop_one(path: &Path) -> bool {
    match try_drop(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!("remove blob {}: {error}", path.display());
            false
        }
        Ok(dropped) => dropped,
    }
}

fn try_drop(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    if path.extension().is_some_and(|extension| extension == PART) {
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => {}
            Ok(()) | Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    } else if file.metadata()?.nlink() > 1 {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}

/// Makes and locks a file. Between the two its holder may rename it away or remove it: then again.
fn hold(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.lock()?;
        if is_at(&file, path) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use image::oci::Algorithm;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    struct Here {
        dir: tempfile::TempDir,
        blobs: Blobs,
    }

    impl Here {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let blobs = Blobs::new(dir.path().join("blobs"));
            Self { dir, blobs }
        }

        fn get(&self, content: &[u8], name: &str, fetched: &AtomicUsize) {
            let digest = Digest::of(Algorithm::Sha256, content);
            let target = self.dir.path().join(name);
            let size = content.len() as u64;
            let fill = |mut file: &File| {
                fetched.fetch_add(1, Ordering::Relaxed);
                Ok(file.write_all(content)?)
            };
            self.blobs.link(&digest, size, &target, fill).unwrap();
            assert_eq!(fs::read(target).unwrap(), content);
        }
    }

    #[test]
    fn blob_that_many_want_at_once_is_fetched_once() {
        let (here, fetched) = (Here::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for index in 0..16 {
                let (here, fetched) = (&here, &fetched);
                scope.spawn(move || here.get(b"content", &format!("link-{index}"), fetched));
            }
        });
        assert_eq!(fetched.into_inner(), 1);
    }

    #[test]
    fn blob_of_another_size_than_promised_is_fetched_anew() {
        let (here, fetched) = (Here::new(), AtomicUsize::new(0));
        here.get(b"content", "one", &fetched);
        let path = here.blobs.path(&Digest::of(Algorithm::Sha256, b"content"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "torn").unwrap();
        here.get(b"content", "two", &fetched);
        assert_eq!(fetched.into_inner(), 2);
        assert_eq!(fs::read(path).unwrap(), b"content");
    }

    #[test]
    fn part_that_failed_is_gone_on_with_and_an_empty_one_gone() {
        let here = Here::new();
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let target = here.dir.path().join("x");
        let failed = here.blobs.link(&digest, 7, &target, |mut file| {
            file.write_all(b"con")?;
            bail!("lost")
        });
        assert!(failed.is_err());
        here.blobs
            .link(&digest, 7, &target, |mut file| {
                assert_eq!(file.metadata()?.len(), 3);
                io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
                Ok(file.write_all(b"tent")?)
            })
            .unwrap();
        assert_eq!(fs::read(target).unwrap(), b"content");
        let other = Digest::of(Algorithm::Sha256, b"other");
        let target = here.dir.path().join("y");
        assert!(
            here.blobs
                .link(&other, 5, &target, |_| bail!("lost"))
                .is_err()
        );
        assert_eq!(here.blobs.kept().unwrap().len(), 1);
    }

    #[test]
    fn trim_removes_the_oldest_that_nobody_uses() {
        let (here, fetched) = (Here::new(), AtomicUsize::new(0));
        for (age, name) in [(3, "used"), (2, "old"), (1, "new")] {
            here.get(&vec![b'x'; 4096 * (1 + age)], name, &fetched);
            let path = here.blobs.path(&Digest::of(
                Algorithm::Sha256,
                &vec![b'x'; 4096 * (1 + age)],
            ));
            let ago = SystemTime::now() - Duration::from_secs(age as u64 * 60);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(ago)
                .unwrap();
            if name != "used" {
                fs::remove_file(here.dir.path().join(name)).unwrap();
            }
        }
        here.blobs.trim(6 * 4096).unwrap();
        let left: Vec<_> = here.blobs.kept().unwrap();
        let left: Vec<_> = left.iter().map(|(_, bytes, _)| bytes / 4096).collect();
        assert!(
            left.contains(&4) && left.contains(&2) && left.len() == 2,
            "{left:?}"
        );
        here.blobs.trim(0).unwrap();
        assert_eq!(here.blobs.kept().unwrap().len(), 1);
    }

    #[test]
    fn part_that_is_being_filled_is_not_trimmed() {
        let here = Here::new();
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let target = here.dir.path().join("x");
        here.blobs
            .link(&digest, 7, &target, |mut file| {
                file.write_all(b"content")?;
                here.blobs.trim(0)
            })
            .unwrap();
        assert_eq!(fs::read(target).unwrap(), b"content");
    }
}

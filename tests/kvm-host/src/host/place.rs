//! Where emulated hosts are found: one folder per user, in it one folder per host, named by what the host is made of.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

/// The user's folder, made if it is not there; fails if it belongs to somebody else or others can enter it.
pub fn user_folder() -> Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_dir());
    let base = runtime.unwrap_or_else(|| PathBuf::from("/tmp"));
    let path = base.join(format!("fairing-kvm-{}", geteuid()));
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&path)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("make {}", path.display()));
    }
    let facts =
        fs::symlink_metadata(&path).with_context(|| format!("look at {}", path.display()))?;
    let own =
        facts.is_dir() && facts.uid() == geteuid().as_raw() && facts.mode().trailing_zeros() >= 6;
    ensure!(own, "{} is not a folder of this user alone", path.display());
    Ok(path)
}

/// Holds off other clients of this user while one looks for a host or starts one.
pub fn lock(folder: &Path) -> Result<Flock<File>> {
    let file = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context("lock the folder of hosts")
}

/// First part of the names of a checkout's kept hosts.
pub fn kept_prefix(checkout: &Path) -> String {
    format!("kept-{:08x}-", digest(&checkout) >> 32)
}

/// A number that differs when the value does; the same in every run of this program.
pub fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The folders that are the same files on both sides: absolute, existing, none inside another, outer ones first.
pub fn bound_folders(wanted: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = wanted
        .into_iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    folders.sort();
    let mut bound: Vec<PathBuf> = Vec::new();
    for folder in folders {
        if folder.is_dir() && !bound.iter().any(|outer| folder.starts_with(outer)) {
            bound.push(folder);
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_folders_inside_others_or_missing_are_left_out() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let wanted = [
            inner.clone(),
            outer.path().into(),
            outer.path().join("missing"),
            inner,
        ];
        assert_eq!(
            bound_folders(wanted),
            [fs::canonicalize(outer.path()).unwrap()]
        );
    }
}

//! Ids that one process has for itself, machine-wide: claimed by a lock that is held, through an open descriptor, exactly as long as
//! it lives, so that nothing is to be cleaned up after a crash. A claim also names its holder, whose files may outlive it.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};

/// Longest path of a holder in a claim, bytes.
const MAX_CLAIM_BYTES: u64 = 4096;

/// Claims for `holder` the first of `ids` that is free, by a file in the folder `claims`; none if none is. One is not free either
/// whose last holder `has_files` still, and is another.
///
/// # Errors
/// Those of the file system.
pub fn claim(
    claims: &Path,
    ids: impl Iterator<Item = u32>,
    holder: &Path,
    has_files: impl Fn(&Path) -> bool,
) -> Result<Option<(u32, File)>> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(claims)
        .with_context(|| format!("make {}", claims.display()))?;
    for id in ids {
        let path = claims.join(id.to_string());
        let claim = try_claim(&path, holder, &has_files);
        let claim = claim.with_context(|| format!("claim an id by {}", path.display()))?;
        if let Some(claim) = claim {
            return Ok(Some((id, claim)));
        }
    }
    Ok(None)
}

/// The claim at `path` if nobody has it: locked through a descriptor that cannot write it, for a jailed process keeps that one.
fn try_claim(
    path: &Path,
    holder: &Path,
    has_files: impl Fn(&Path) -> bool,
) -> io::Result<Option<File>> {
    let mut writable = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let claim = File::open(path)?;
    match claim.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut last = Vec::new();
    (&claim).take(MAX_CLAIM_BYTES).read_to_end(&mut last)?;
    let last = Path::new(OsStr::from_bytes(&last));
    if !last.as_os_str().is_empty() && last != holder && has_files(last) {
        return Ok(None);
    }
    writable.set_len(0)?;
    writable.write_all(holder.as_os_str().as_bytes())?;
    Ok(Some(claim))
}

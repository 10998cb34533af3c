//! The locks of containers/storage: a file in each folder with an index, locked by `fcntl` over its whole length.
//!
//! Taken for reading, as podman does where it reads. A lock of the open file description keeps out podman's locks of
//! processes, and does not go when somebody in this process closes the file.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Keeps writers away until it is dropped.
pub struct ReadLock(#[expect(dead_code, reason = "closing the file unlocks it")] File);

impl ReadLock {
    /// Locks the file at `path`, which is not made if it is missing; waits for who writes.
    ///
    /// # Errors
    /// If there is none, or it cannot be locked.
    pub fn take(path: &Path) -> Result<Self> {
        let lock = || format!("lock {}", path.display());
        let file = File::open(path).with_context(lock)?;
        let whole = libc::flock {
            l_type: i16::try_from(libc::F_RDLCK).with_context(lock)?,
            l_whence: i16::try_from(libc::SEEK_SET).with_context(lock)?,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole)) {
                Err(Errno::EINTR) => {}
                locked => return locked.map(|_| Self(file)).with_context(lock),
            }
        }
    }
}

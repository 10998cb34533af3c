//! Who uses an image or a layer holds a shared lock on its folder, and who removes it the only one: so nothing goes that a command
//! works with, before the pod that it makes has the image's files itself. A lock goes with its process, however that ends.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::workshop::open_folder;
use crate::held::is_at;

/// An image's folder, locked.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Keeps the lock.
    _folder: Arc<File>,
}

impl Lease {
    fn of(folder: File) -> Self {
        Self {
            _folder: Arc::new(folder),
        }
    }

    /// Keeps the image in `folder` where it is; `None` if there is none.
    ///
    /// # Errors
    /// If the folder cannot be opened or locked.
    pub fn share(folder: &Path) -> Result<Option<Self>> {
        let Some(file) = opened(folder)? else {
            return Ok(None);
        };
        file.lock_shared()
            .with_context(|| format!("lock {}", folder.display()))?;
        // Who had it may have taken it away.
        Ok(is_at(&file, folder).then(|| Self::of(file)))
    }

    /// Keeps all others from the image in `folder`; `None` if there is none, or somebody uses it.
    ///
    /// # Errors
    /// As for [`share`](Self::share).
    pub fn claim(folder: &Path) -> Result<Option<Self>> {
        let Some(file) = opened(folder)? else {
            return Ok(None);
        };
        match file.try_lock() {
            Ok(()) => Ok(is_at(&file, folder).then(|| Self::of(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("lock {}", folder.display()))
            }
        }
    }
}

fn opened(folder: &Path) -> Result<Option<File>> {
    match open_folder(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => Ok(Some(
            opened.with_context(|| format!("open {}", folder.display()))?,
        )),
    }
}

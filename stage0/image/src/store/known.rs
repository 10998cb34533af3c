//! Sources seen before: a tar of the host that has not changed since it became an image need not be read again.
//!
//! Called by an import, on its thread. A tar is known by device, inode, size and times of its file; the inode's change
//! time cannot be set back. Layered images need none of this, as their id is known before their layers are read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::names::{read_id, write_id};
use super::place::Place;
use crate::digest::{Algorithm, Digest};

/// A file changed less than this before it was read may change again without its times telling.
const SETTLED: Duration = Duration::from_secs(2);

/// What a source is remembered by.
pub struct Key {
    path: PathBuf,
    settled: bool,
}

impl Key {
    /// The key of the file with `metadata`, imported for `architecture`.
    pub fn new(place: &Place, metadata: &Metadata, architecture: &str) -> Self {
        let text = format!(
            "{architecture} {} {} {} {}.{:09} {}.{:09}",
            metadata.dev(),
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        let changed = u64::try_from(metadata.ctime()).map_or(UNIX_EPOCH, |seconds| {
            UNIX_EPOCH + Duration::from_secs(seconds)
        });
        let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
        Self {
            path: place.sources().join(digest.hex()),
            settled: SystemTime::now()
                .duration_since(changed)
                .is_ok_and(|age| age > SETTLED),
        }
    }

    /// The file of the store that keeps it.
    #[cfg(test)]
    pub fn file(&self) -> &std::path::Path {
        &self.path
    }

    /// The id of the image that the file became.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn id(&self) -> Result<Option<String>> {
        read_id(&self.path)
    }

    /// Remembers that the file, its key now `after`, became `id`; not if it changed meanwhile or a moment before.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn remember(&self, after: &Self, place: &Place, id: &str) -> Result<()> {
        if self.settled && self.path == after.path {
            write_id(place, &self.path, id)?;
        }
        Ok(())
    }
}

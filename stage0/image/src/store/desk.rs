//! Room in the store for who fetches images: a desk to lay an image out on before it is imported, blobs that stay.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Store;
use super::workshop::Workshop;

/// A folder for work in progress: gone with this value, or swept once its process has been killed.
pub struct Desk(Workshop);

impl Desk {
    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Store {
    /// A desk of one's own, empty.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn desk(&self) -> Result<Desk> {
        Workshop::unique(&self.place.tmp()).map(Desk)
    }

    /// Where blobs that were fetched are kept; whoever fetches looks after it.
    pub fn blobs(&self) -> PathBuf {
        self.place.blobs()
    }

    /// Where images of URLs arrive; whoever fetches looks after it.
    pub fn downloads(&self) -> PathBuf {
        self.place.downloads()
    }
}

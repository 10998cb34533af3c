//! What of the disk the store takes. Files that come and go meanwhile count or do not.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Image, Store};

/// Bytes of the unit in which Linux counts a file's blocks.
const UNIT_BYTES: u64 = 512;

/// What a layer takes.
#[derive(Clone, Debug)]
pub struct LayerSpace {
    /// Bytes of the disk.
    pub bytes: u64,
    /// The ids of the images that have it.
    pub images: Vec<String>,
}

impl Store {
    /// Bytes of the disk that the files of `image` take, without those of its layers.
    ///
    /// # Errors
    /// If they cannot be looked at.
    pub fn image_space(&self, image: &Image) -> Result<u64> {
        measured(&self.place.image(&image.id))
    }

    /// The layers of `images`, and those that nobody has.
    ///
    /// # Errors
    /// If they cannot be looked at.
    pub fn layer_space(&self, images: &[Image]) -> Result<Vec<LayerSpace>> {
        let mut users: HashMap<PathBuf, Vec<String>> = HashMap::new();
        for image in images {
            for layer in &image.layers {
                let folder = self.place.layer(&layer.diff_id.parse()?);
                let users = users.entry(folder).or_default();
                // An image may have the same layer twice.
                if users.last() != Some(&image.id) {
                    users.push(image.id.clone());
                }
            }
        }
        let dir = self.place.layers();
        let entries = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
        let space = entries.map(|entry| {
            let folder = entry
                .with_context(|| format!("read {}", dir.display()))?
                .path();
            Ok(LayerSpace {
                bytes: measured(&folder)?,
                images: users.remove(&folder).unwrap_or_default(),
            })
        });
        space.collect()
    }

    /// Bytes that the store may still take; `None` if nobody said. Imports under way count with what they have taken by now.
    ///
    /// # Errors
    /// If what it takes cannot be measured.
    pub(super) fn room(&self) -> Result<Option<u64>> {
        let room = |max: u64| Ok(max.saturating_sub(measured(self.place.dir())?));
        self.max_bytes.map(room).transpose()
    }

    /// Bytes of the disk that work in progress takes.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn work_space(&self) -> Result<u64> {
        measured(&self.place.tmp())
    }

    /// Bytes of the disk that downloads take which are kept for the next.
    ///
    /// # Errors
    /// If they cannot be looked at.
    pub fn blob_space(&self) -> Result<u64> {
        measured(&self.place.dir().join("blobs"))
    }
}

fn measured(path: &Path) -> Result<u64> {
    bytes(path, &mut HashSet::new()).with_context(|| format!("measure {}", path.display()))
}

/// What is at `path` takes, and what is below it; nothing, if it is not there.
fn bytes(path: &Path, seen: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let Some(found) = there(fs::symlink_metadata(path))? else {
        return Ok(0);
    };
    // One with several names takes its space once.
    let is_new = found.nlink() < 2 || found.is_dir() || seen.insert((found.dev(), found.ino()));
    let own = if is_new { taken(&found) } else { 0 };
    if !found.is_dir() {
        return Ok(own);
    }
    let Some(entries) = there(fs::read_dir(path))? else {
        return Ok(own);
    };
    entries
        .map(|entry| bytes(&entry?.path(), seen))
        .try_fold(own, |sum, bytes| Ok(sum.saturating_add(bytes?)))
}

fn taken(found: &Metadata) -> u64 {
    found.blocks().saturating_mul(UNIT_BYTES)
}

/// What was found, if it is there at all.
pub(super) fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

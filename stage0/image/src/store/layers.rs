//! The layers of OCI images, each kept once: the data of its files, and a journal of what it does to the layers below it. An image is
//! an index in front of the data of its layers (`erofs`).
//!
//! A layer stays for as long as an image has it. Whoever makes an image holds a shared lock on the folders of its layers until the
//! image is there; who removes a layer that no image has holds the only one.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::place::{LAYER_DATA, LAYER_JOURNAL, Place, RECORD, layer_name};
use super::verify::digest_of;
use super::workshop::{self, Workshop};
use super::{Store, image};
use crate::Writer;
use crate::digest::Digest;
use crate::erofs::BLOCK;

/// A layer as an image's record names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// Digest of its uncompressed tar.
    pub diff_id: String,
    /// Blocks of its data; a layer may have none.
    pub blocks: u32,
}

impl LayerRef {
    /// What the data of its files take, in bytes.
    pub fn data_bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK as u64
    }
}

/// What the store keeps beside a layer's files.
#[derive(Debug, Serialize, Deserialize)]
pub struct LayerRecord {
    pub blocks: u32,
    /// Digests of the two files.
    pub data: String,
    pub journal: String,
}

/// A layer that stays while this is there.
pub struct Held {
    pub layer: LayerRef,
    _lease: Lease,
}

/// Applies the layer `diff_id` to an image: as it is kept, or else by `apply`, and then keeps it.
///
/// # Errors
/// If it cannot be read or kept; and those of `apply`.
pub fn apply(
    place: &Place,
    diff_id: &Digest,
    writer: &mut Writer,
    apply: impl FnOnce(&mut Writer) -> Result<()>,
) -> Result<Held> {
    if let Some(held) = replay(place, diff_id, writer)? {
        return Ok(held);
    }
    let name = format!("layer-{}", layer_name(diff_id));
    let workshop = Workshop::enter(&place.tmp(), &name)?;
    // Another may have made it meanwhile.
    if let Some(held) = replay(place, diff_id, writer)? {
        return Ok(held);
    }
    let data = workshop.create(LAYER_DATA, 0o600)?;
    let journal = workshop.create(LAYER_JOURNAL, 0o640)?;
    let (to, notes) = (data.try_clone()?, journal.try_clone()?);
    let blocks = writer.record_layer(to, notes, apply)?;
    let record = LayerRecord {
        blocks,
        data: settle(&data, &workshop.join(LAYER_DATA))?,
        journal: settle(&journal, &workshop.join(LAYER_JOURNAL))?,
    };
    workshop.write(RECORD, &serde_json::to_vec(&record)?)?;
    let lease = workshop.deliver(&place.layer(diff_id))?;
    let lease = lease.with_context(|| format!("layer {diff_id} is there already"))?;
    let layer = LayerRef {
        diff_id: diff_id.to_string(),
        blocks,
    };
    Ok(Held {
        layer,
        _lease: lease,
    })
}

/// Makes a file durable that nobody writes any more; gives its digest.
///
/// # Errors
/// If it cannot be read or made durable.
pub fn settle(file: &File, path: &Path) -> Result<String> {
    // The disk and the processor need not wait for one another.
    let (durable, digest) = thread::scope(|scope| {
        let digest = scope.spawn(|| digest_of(path));
        let durable = file
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| file.sync_all());
        (durable, digest.join())
    });
    durable.with_context(|| format!("make {} durable", path.display()))?;
    let digest = digest.map_err(|_| anyhow!("the reader of {} panicked", path.display()))??;
    Ok(digest.to_string())
}

/// Applies the layer as it is kept; `None` if it is not. A damaged one is thrown away, as it is about to be made anew.
fn replay(place: &Place, diff_id: &Digest, writer: &mut Writer) -> Result<Option<Held>> {
    let folder = place.layer(diff_id);
    let Some(lease) = Lease::share(&folder)? else {
        return Ok(None);
    };
    let (record, journal) = match sound(&folder) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!("layer {diff_id} is damaged: {error:#}");
            drop(lease);
            remove(place, &folder)?;
            return Ok(None);
        }
    };
    writer
        .replay_layer(journal, record.blocks)
        .with_context(|| format!("read what {} keeps", folder.display()))?;
    let layer = LayerRef {
        diff_id: diff_id.to_string(),
        blocks: record.blocks,
    };
    Ok(Some(Held {
        layer,
        _lease: lease,
    }))
}

/// The record of the layer in `folder` and its journal, whose digest is right; the data are as long as they should be.
fn sound(folder: &Path) -> Result<(LayerRecord, File)> {
    let record = read_record(folder)?;
    let data = folder.join(LAYER_DATA);
    let bytes = fs::metadata(&data).with_context(|| format!("look at {}", data.display()))?;
    ensure!(
        bytes.len() == u64::from(record.blocks) * BLOCK as u64,
        "its data are cut short"
    );
    let path = folder.join(LAYER_JOURNAL);
    let found = digest_of(&path)?.to_string();
    ensure!(found == record.journal, "its journal has changed");
    let journal = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    Ok((record, journal))
}

/// What is known of the layer in `folder`.
///
/// # Errors
/// If it is damaged.
pub fn read_record(folder: &Path) -> Result<LayerRecord> {
    let path = folder.join(RECORD);
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
}

impl Store {
    /// Keeps the layer here whose uncompressed tar has this digest, so that an image with it can be imported without its blob; `None`
    /// if there is none.
    ///
    /// # Errors
    /// If it cannot be locked.
    pub fn hold_layer(&self, diff_id: &Digest) -> Result<Option<Lease>> {
        Lease::share(&self.place.layer(diff_id))
    }

    /// Removes the layers that no image has.
    ///
    /// # Errors
    /// If the store cannot be read, or one cannot be removed.
    pub fn trim_layers(&self) -> Result<()> {
        let dir = self.place.layers();
        let in_use = self.folders_in_use()?;
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry.with_context(|| format!("read {}", dir.display()))?;
            if !in_use.contains(&entry.path()) {
                self.trim_layer(&entry.path())?;
            }
        }
        Ok(())
    }

    fn trim_layer(&self, folder: &Path) -> Result<()> {
        // An image that is being made holds its layers; one that is there by then names them.
        let Some(_claim) = Lease::claim(folder)? else {
            return Ok(());
        };
        if self.folders_in_use()?.contains(folder) {
            return Ok(());
        }
        remove(&self.place, folder)
    }

    /// The folders of all layers that an image has.
    fn folders_in_use(&self) -> Result<HashSet<PathBuf>> {
        let mut folders = HashSet::new();
        for id in self.ids()? {
            for layer in image::layers_of(&self.place, &id)? {
                folders.insert(self.place.layer(&layer.diff_id.parse()?));
            }
        }
        Ok(folders)
    }
}

/// Takes a layer out of the store by one rename, and removes it then.
fn remove(place: &Place, folder: &Path) -> Result<()> {
    let workshop = Workshop::unique(&place.tmp())?;
    match fs::rename(folder, workshop.join("removed")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove layer {}", folder.display()))
        }
        _ => workshop::sync_folder(&place.layers()),
    }
}

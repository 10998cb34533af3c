//! The layers of OCI images, each kept once: the data of its files, and a journal of what it does to the layers below it. An image is
//! an index in front of the data of its layers (`erofs`).
//!
//! A layer stays for as long as an image has it. Whoever makes an image holds a shared lock on the folders of its layers until the
//! image is there; who removes a layer that no image has holds the only one.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::place::{LAYER_DATA, LAYER_JOURNAL, Place, RECORD, layer_name};
use super::removal::discard;
use super::space::there;
use super::verify::digest_of;
use super::workshop::Workshop;
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
    match kept(place, diff_id)? {
        Kept::Sound(kept) => return kept.replay(writer),
        Kept::Damaged(_) | Kept::Missing => {}
    }
    let name = format!("layer-{}", layer_name(diff_id));
    let workshop = Workshop::enter(&place.tmp(), &name)?;
    // Another may have made it meanwhile.
    match kept(place, diff_id)? {
        Kept::Sound(kept) => return kept.replay(writer),
        Kept::Damaged(reason) => {
            tracing::warn!("layer {diff_id} is damaged and made anew: {reason}");
            discard(place, &place.layer(diff_id))?;
        }
        Kept::Missing => {}
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

/// What the store has of a layer.
enum Kept {
    Sound(Layer),
    /// With what is wrong.
    Damaged(String),
    Missing,
}

/// A layer that can be applied again.
struct Layer {
    layer: LayerRef,
    journal: File,
    lease: Lease,
}

impl Layer {
    fn replay(self, writer: &mut Writer) -> Result<Held> {
        let LayerRef { diff_id, blocks } = &self.layer;
        writer
            .replay_layer(self.journal, *blocks)
            .with_context(|| format!("lay layer {diff_id} over others, as the store keeps it"))?;
        Ok(Held {
            layer: self.layer,
            _lease: self.lease,
        })
    }
}

/// What the store has of the layer `diff_id`: that the digest of its journal is right and its data are as long as they should be.
fn kept(place: &Place, diff_id: &Digest) -> Result<Kept> {
    let folder = place.layer(diff_id);
    let Some(lease) = Lease::share(&folder)? else {
        return Ok(Kept::Missing);
    };
    let record = match read_record(&folder) {
        Err(error) if is_missing(&error) || error.is::<serde_json::Error>() => {
            return Ok(Kept::Damaged(format!("{error:#}")));
        }
        record => record?,
    };
    let layer = LayerRef {
        diff_id: diff_id.to_string(),
        blocks: record.blocks,
    };
    let opened = |name: &str| {
        let path = folder.join(name);
        there(File::open(&path)).with_context(|| format!("open {}", path.display()))
    };
    let (Some(data), Some(journal)) = (opened(LAYER_DATA)?, opened(LAYER_JOURNAL)?) else {
        return Ok(Kept::Damaged("its files are missing".to_owned()));
    };
    let bytes = data.metadata().context("look at a layer's data")?.len();
    if bytes != layer.data_bytes() {
        return Ok(Kept::Damaged("its data are cut short".to_owned()));
    }
    if digest_of(&folder.join(LAYER_JOURNAL))?.to_string() != record.journal {
        return Ok(Kept::Damaged("its journal has changed".to_owned()));
    }
    Ok(Kept::Sound(Layer {
        layer,
        journal,
        lease,
    }))
}

fn is_missing(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
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
    /// if there is none, or it is damaged.
    ///
    /// # Errors
    /// If it cannot be locked or read.
    pub fn hold_layer(&self, diff_id: &Digest) -> Result<Option<Lease>> {
        Ok(match kept(&self.place, diff_id)? {
            Kept::Sound(layer) => Some(layer.lease),
            Kept::Damaged(_) | Kept::Missing => None,
        })
    }

    /// The ids of the images that have `layer`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn images_with(&self, layer: &LayerRef) -> Result<Vec<String>> {
        let mut images = self.list()?;
        images.retain(|image| image.layers.contains(layer));
        Ok(images.into_iter().map(|image| image.id).collect())
    }

    /// Removes the layers that no image has.
    ///
    /// # Errors
    /// If the store cannot be read, or one cannot be removed.
    pub fn trim_layers(&self) -> Result<()> {
        let dir = self.place.layers();
        let in_use = self.folders_in_use()?;
        let mut claimed = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let folder = entry
                .with_context(|| format!("read {}", dir.display()))?
                .path();
            if folder.is_dir()
                && !in_use.contains(&folder)
                && let Some(claim) = Lease::claim(&folder)?
            {
                claimed.push((folder, claim));
            }
        }
        if claimed.is_empty() {
            return Ok(());
        }
        // An image that was being made held its layers; one that is there by now names them.
        let in_use = self.folders_in_use()?;
        let unused = claimed
            .iter()
            .filter(|(folder, _)| !in_use.contains(folder));
        for (folder, _claim) in unused {
            discard(&self.place, folder)?;
        }
        Ok(())
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

//! An image in the store, as callers see it, and the record that keeps what the manifest does not say.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use contract::{ImageManifest, annotation};
use serde::{Deserialize, Serialize};

use super::layers::LayerRef;
use super::lease::Lease;
use super::place::{INDEX, LAYER_DATA, MANIFEST, Place, RECORD, ROOTFS};
use super::workshop::Workshop;
use crate::source::convert::annotations::{CMD, ENTRYPOINT};
use crate::source::document::History;

/// What an image was before it was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An OCI layout or a `docker save` archive.
    Oci,
    /// An App Container Image.
    Aci,
    /// A bare root file system.
    RootFs,
}

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha512-` and 128 hexadecimal digits.
    pub id: String,
    /// The names that stand for it now, sorted.
    pub names: Vec<String>,
    /// What it was.
    pub kind: Kind,
    /// Its description.
    pub manifest: ImageManifest,
    /// The EROFS file with its files; or its index, which is to be read as if `data` followed.
    pub rootfs: PathBuf,
    /// The data of its layers, in order, where they have files of their own.
    pub data: Vec<PathBuf>,
    /// Size of all of these in bytes.
    pub rootfs_bytes: u64,
    /// Its layers, where they are kept by themselves.
    pub layers: Vec<LayerRef>,
    /// When it was imported.
    pub imported: SystemTime,
    /// When a command last looked it up.
    pub used: SystemTime,
    /// Digest of the OCI manifest, if there was one.
    pub digest: Option<String>,
    /// Digest of the EROFS file; images of an earlier fairing have none.
    pub rootfs_digest: Option<String>,
    /// Keeps the image in the store, where it was looked up to be used.
    pub lease: Option<Lease>,
    /// Of an ACI: the ids of the images whose files lie below its own, lowest first.
    pub below: Vec<String>,
    /// What may be called an ACI's size, in bytes: that of its file and that of the tar in it.
    pub source_bytes: Vec<u64>,
    /// The steps in which it was made, first to last, where that is known.
    pub history: Vec<History>,
}

/// What the store keeps beside the manifest.
#[derive(Serialize, Deserialize)]
pub struct Record {
    pub kind: Kind,
    /// Seconds since 1970.
    pub imported: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of the EROFS file. Earlier versions of fairing write none and pass over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// Lowest first. Earlier versions of fairing have none, and do not find the file of an image that has some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_bytes: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
}

impl Record {
    /// The record of an image imported now, its file with the digest `rootfs`.
    pub fn now(kind: Kind, digest: Option<String>, rootfs: String) -> Self {
        let imported = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            kind,
            imported,
            digest,
            rootfs: Some(rootfs),
            layers: Vec::new(),
            below: Vec::new(),
            source_bytes: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Writes manifest and record into `workshop`, durable.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, manifest: &ImageManifest, workshop: &Workshop) -> Result<()> {
        for (name, json) in [
            (MANIFEST, serde_json::to_vec(manifest)),
            (RECORD, serde_json::to_vec(self)),
        ] {
            let json = json.with_context(|| format!("write {name}"))?;
            workshop.write(name, &json)?;
        }
        Ok(())
    }
}

/// Notes that the image `id` is used now, in the time of its record. Who may not is no user whom others wait for.
pub(super) fn touch(place: &Place, id: &str) {
    if let Ok(record) = fs::File::open(place.image(id).join(RECORD)) {
        let _ = record.set_modified(SystemTime::now());
    }
}

fn read_record(place: &Place, id: &str) -> Result<Option<Record>> {
    let record = match fs::read(place.image(id).join(RECORD)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read image {id}")),
    };
    serde_json::from_slice(&record)
        .map(Some)
        .with_context(|| format!("image {id} is damaged; import it again"))
}

/// The layers of the image `id`; none if it has gone.
pub(super) fn layers_of(place: &Place, id: &str) -> Result<Vec<LayerRef>> {
    Ok(read_record(place, id)?.map_or_else(Vec::new, |record| record.layers))
}

/// The digest of the OCI manifest of the image `id`, if there was one.
pub(super) fn digest_of(place: &Place, id: &str) -> Result<Option<String>> {
    Ok(read_record(place, id)?.and_then(|record| record.digest))
}

/// What the EROFS file of an image with these layers is called.
fn file_of(layers: &[LayerRef]) -> &'static str {
    if layers.is_empty() { ROOTFS } else { INDEX }
}

/// The files with the data of these layers; one without has none.
fn data_of(place: &Place, layers: &[LayerRef]) -> Result<Vec<PathBuf>> {
    let layers = layers.iter().filter(|layer| layer.blocks > 0);
    let file = |layer: &LayerRef| Ok(place.layer(&layer.diff_id.parse()?).join(LAYER_DATA));
    layers.map(file).collect()
}

impl Image {
    /// The image `id`, with its `names`; `None` if the store has none such.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn load(place: &Place, id: &str, names: Vec<String>) -> Result<Option<Self>> {
        let folder = place.image(id);
        let Some(record) = read_record(place, id)? else {
            return Ok(None);
        };
        let damaged = || format!("image {id} is damaged; import it again");
        let manifest = fs::read(folder.join(MANIFEST)).with_context(damaged)?;
        let rootfs = folder.join(file_of(&record.layers));
        let data = data_of(place, &record.layers).with_context(damaged)?;
        let mut rootfs_bytes = 0;
        for file in [&rootfs].into_iter().chain(&data) {
            rootfs_bytes += file.metadata().with_context(damaged)?.len();
        }
        Ok(Some(Self {
            id: id.to_owned(),
            names,
            kind: record.kind,
            manifest: serde_json::from_slice(&manifest).with_context(damaged)?,
            rootfs_bytes,
            rootfs,
            data,
            layers: record.layers,
            imported: UNIX_EPOCH + Duration::from_secs(record.imported),
            used: folder
                .join(RECORD)
                .metadata()
                .and_then(|found| found.modified())
                .with_context(damaged)?,
            digest: record.digest,
            rootfs_digest: record.rootfs,
            lease: None,
            below: record.below,
            source_bytes: record.source_bytes,
            history: record.history,
        }))
    }

    /// Its EROFS file, and the files whose data follow it.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = std::iter::once(&self.rootfs).chain(&self.data);
        files.cloned().collect()
    }

    /// The Entrypoint of an OCI image; `None` if it has none, and for other images.
    ///
    /// # Errors
    /// If the annotation that keeps it is damaged.
    pub fn entrypoint(&self) -> Result<Option<Vec<String>>> {
        self.words(ENTRYPOINT)
    }

    /// The Cmd of an OCI image; `None` if it has none, and for other images.
    ///
    /// # Errors
    /// If the annotation that keeps it is damaged.
    pub fn cmd(&self) -> Result<Option<Vec<String>>> {
        self.words(CMD)
    }

    /// The signal that asks the app to end, as the image spells it.
    pub fn stop_signal(&self) -> Option<&str> {
        annotation::find(&self.manifest.annotations, annotation::STOP_SIGNAL)
    }

    fn words(&self, name: &str) -> Result<Option<Vec<String>>> {
        annotation::find(&self.manifest.annotations, name)
            .map(serde_json::from_str)
            .transpose()
            .with_context(|| format!("read annotation {name} of image {}", self.id))
    }
}

//! An image in the store, as callers see it, and the record that keeps what the manifest does not say.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use contract::{ImageManifest, annotation};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::place::{MANIFEST, Place, RECORD, ROOTFS};
use super::workshop::Workshop;
use crate::digest::Digest;
use crate::source::convert::{CMD, ENTRYPOINT};

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
    /// The EROFS file with its files.
    pub rootfs: PathBuf,
    /// Size of that file in bytes.
    pub rootfs_bytes: u64,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_bytes: Vec<u64>,
}

impl Record {
    /// The record of an image imported now, its file with the digest `rootfs`.
    pub fn now(kind: Kind, digest: Option<String>, rootfs: &Digest) -> Self {
        let imported = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            kind,
            imported,
            digest,
            rootfs: Some(rootfs.to_string()),
            below: Vec::new(),
            source_bytes: Vec::new(),
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
            let mut file = workshop.create(name, 0o640)?;
            file.write_all(&json)
                .and_then(|()| file.sync_all())
                .with_context(|| format!("write {name}"))?;
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

impl Image {
    /// The image `id`, with its `names`; `None` if the store has none such.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn load(place: &Place, id: &str, names: Vec<String>) -> Result<Option<Self>> {
        let folder = place.image(id);
        let record = match fs::read(folder.join(RECORD)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read image {id}")),
        };
        let damaged = || format!("image {id} is damaged; import it again");
        let record: Record = serde_json::from_slice(&record).with_context(damaged)?;
        let manifest = fs::read(folder.join(MANIFEST)).with_context(damaged)?;
        let rootfs = folder.join(ROOTFS);
        Ok(Some(Self {
            id: id.to_owned(),
            names,
            kind: record.kind,
            manifest: serde_json::from_slice(&manifest).with_context(damaged)?,
            rootfs_bytes: rootfs.metadata().with_context(damaged)?.len(),
            rootfs,
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
        }))
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

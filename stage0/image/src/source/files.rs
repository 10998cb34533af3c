//! The parts of an image by name: files of a folder, or entries of an archive.
//!
//! The sources of layered images read through it, so that a layout is the same in both forms.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::archive::Archive;
use super::document::{self, Descriptor, MAX_JSON_BYTES};
use super::select::Documents;
use crate::blob::Blob;
use crate::digest::Digest;

/// Where the parts lie.
pub enum Files {
    /// A folder of the host.
    Folder(PathBuf),
    /// A tar, its entries read in place.
    Archive(Archive),
}

impl Files {
    /// Whether there is a part called `name`.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Archive(archive) => archive.find(name).is_some(),
        }
    }

    /// The part called `name`, a clean relative path.
    ///
    /// # Errors
    /// If there is none, or it is not a regular file.
    pub fn find(&self, name: &str) -> Result<Blob> {
        match self {
            Self::Folder(path) => Blob::open(&path.join(name)),
            Self::Archive(archive) => archive
                .find(name)
                .with_context(|| format!("{} lacks {name}", archive.object())),
        }
    }

    /// The blob of `descriptor`, its size as promised; its digest is not checked yet.
    ///
    /// # Errors
    /// If it is missing or of another size.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<(Blob, Digest)> {
        let digest: Digest = descriptor.digest.parse()?;
        let blob = self.find(&digest.blob_path())?;
        if blob.length() != descriptor.size {
            bail!(
                "{} has {} bytes, its descriptor says {}: damaged or truncated",
                blob.object(),
                blob.length(),
                descriptor.size
            );
        }
        Ok((blob, digest))
    }

    /// The document called `name`.
    ///
    /// # Errors
    /// If it is missing, too large, or not such a document.
    pub fn named_document<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let blob = self.find(name)?;
        document::parse(&blob.read_all(MAX_JSON_BYTES)?, blob.object())
    }
}

impl Documents for Files {
    fn object(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Archive(archive) => archive.object().to_owned(),
        }
    }

    fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        let (blob, digest) = self.blob(descriptor)?;
        let bytes = blob.read_all(MAX_JSON_BYTES)?;
        check(
            &Digest::of(digest.algorithm(), &bytes),
            &digest,
            blob.object(),
        )?;
        document::parse(&bytes, blob.object())
    }
}

/// Compares the digest found with the one promised.
///
/// # Errors
/// If they differ; the error names `object`.
pub fn check(found: &Digest, promised: &Digest, object: &str) -> Result<()> {
    if found != promised {
        bail!("wrong digest: {object} has {found}, promised was {promised}");
    }
    Ok(())
}

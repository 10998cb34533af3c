//! A layered image, and its way through decompression and digest checks into the writer.
//!
//! Made by the OCI and docker sources, run by the store on the thread of the import. A layer is read once: its blob
//! digest and its diff id are computed on the way.

use anyhow::{Context, Result, bail};
use contract::ImageManifest;

use super::content::Content;
use super::document::{History, Platform};
use super::files::check;
use super::meter::Meter;
use crate::Writer;
use crate::decompress::decompress;
use crate::digest::{Algorithm, Digest, Hashing};

/// Layers taken; builders stop at 127.
pub const MAX_LAYERS: usize = 1024;

/// An image made of layers.
pub struct Layers {
    /// Converted from the image's configuration.
    pub manifest: ImageManifest,
    /// What the source calls the image.
    pub names: Vec<String>,
    /// Digest of the OCI manifest, if there is one.
    pub digest: Option<Digest>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The steps in which it was made, first to last.
    pub history: Vec<History>,
}

/// One layer.
pub struct Layer {
    /// The tar, compressed or not; `None` if it is missing, as that of a layer may be which the store has.
    pub blob: Option<Content>,
    /// Promised digest of the blob; `docker save` promises none.
    pub digest: Option<Digest>,
    /// Promised digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// Pairs blobs with the diff ids of the configuration.
///
/// # Errors
/// If there are not as many of one as of the other, or too many.
pub fn pair(
    blobs: Vec<(Option<Content>, Option<Digest>)>,
    diff_ids: &[String],
    object: &str,
) -> Result<Vec<Layer>> {
    if blobs.len() != diff_ids.len() {
        bail!(
            "{object} has {} layers, its configuration lists {}",
            blobs.len(),
            diff_ids.len()
        );
    }
    if blobs.len() > MAX_LAYERS {
        bail!(
            "{object} has {} layers, more than {MAX_LAYERS}",
            blobs.len()
        );
    }
    blobs
        .into_iter()
        .zip(diff_ids)
        .map(|((blob, digest), diff_id)| {
            Ok(Layer {
                blob,
                digest,
                diff_id: diff_id.parse()?,
            })
        })
        .collect()
}

/// Refuses an image that this host cannot run.
///
/// # Errors
/// If operating system or architecture are others; not if the image does not say.
pub fn check_platform(platform: &Platform, architecture: &str, object: &str) -> Result<()> {
    let os_fits = platform.os.is_empty() || platform.os == "linux";
    let fits = platform.architecture.is_empty() || platform.architecture == architecture;
    if !os_fits || !fits {
        bail!(
            "{object} is for {}/{}, this host runs linux/{architecture}",
            platform.os,
            platform.architecture
        );
    }
    Ok(())
}

impl Layer {
    /// Puts the layer into `writer`, above those before it.
    ///
    /// # Errors
    /// If it cannot be read, is not what its digests promise, or exceeds a limit.
    pub fn write(&self, writer: &mut Writer, meter: &Meter<'_>) -> Result<()> {
        let algorithm = self
            .digest
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let blob = self.blob.as_ref().with_context(|| match &self.digest {
            Some(digest) => format!("its blob {digest} is missing"),
            None => "it is missing".to_owned(),
        })?;
        let mut raw = Hashing::new(meter.watch(blob.reader()), algorithm);
        let merged = self.merge(writer, blob.object(), &mut raw);
        let Some(promised) = &self.digest else {
            return merged;
        };
        // A layer that could not be merged most likely is not the promised one: the rest of the blob tells, and then
        // the wrong digest is the cause to name.
        match raw.finish() {
            Ok(found) => check(&found, promised, blob.object()).and(merged),
            Err(error) => merged.and(Err(error.into())),
        }
    }

    fn merge(&self, writer: &mut Writer, object: &str, raw: &mut impl std::io::Read) -> Result<()> {
        let (_, plain) = decompress(raw).with_context(|| format!("decompress {object}"))?;
        let mut plain = Hashing::new(plain, self.diff_id.algorithm());
        writer
            .apply_layer(&mut plain)
            .with_context(|| format!("read {object}"))?;
        let found = plain
            .finish()
            .with_context(|| format!("read the end of {object}"))?;
        check(&found, &self.diff_id, &format!("uncompressed {object}"))
    }
}

//! Whether an image's file is still what the import made.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::layers::{LayerRef, read_record};
use super::place::{LAYER_DATA, LAYER_JOURNAL};
use super::{Image, Store};
use crate::digest::{Algorithm, Digest, Hashing};

impl Store {
    /// Compares the image's files, and those of its layers, with what the import recorded of it.
    ///
    /// # Errors
    /// If it differs, cannot be read, or nothing was recorded.
    pub fn verify(&self, image: &Image) -> Result<()> {
        let id = &image.id;
        let Some(recorded) = &image.rootfs_digest else {
            bail!(
                "image {id} was imported by a fairing that recorded no digest of its file: remove the image and import it again"
            );
        };
        let found = digest_of(&image.rootfs)?.to_string();
        ensure!(
            found == *recorded,
            "image {id} is damaged: its file has the digest {found}, the import recorded {recorded}; remove the image and import it again"
        );
        for layer in &image.layers {
            if let Err(error) = self.verify_layer(layer) {
                let images = self.images_with(layer)?.join(", ");
                return Err(error.context(format!(
                    "image {id} is damaged: remove all images that have its layer {}, and import them again: {images}",
                    layer.diff_id
                )));
            }
        }
        Ok(())
    }

    fn verify_layer(&self, layer: &LayerRef) -> Result<()> {
        let folder = self.place.layer(&layer.diff_id.parse()?);
        let recorded = read_record(&folder)?;
        for (name, digest) in [
            (LAYER_DATA, recorded.data),
            (LAYER_JOURNAL, recorded.journal),
        ] {
            let path = folder.join(name);
            let found = digest_of(&path)?.to_string();
            ensure!(
                found == digest,
                "{} has the digest {found}, the import recorded {digest}",
                path.display()
            );
        }
        Ok(())
    }
}

/// The digest of the file at `path`.
///
/// # Errors
/// If it cannot be read.
pub fn digest_of(path: &Path) -> Result<Digest> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let digest = Hashing::new(file, Algorithm::Sha256).finish();
    digest.with_context(|| format!("read {}", path.display()))
}

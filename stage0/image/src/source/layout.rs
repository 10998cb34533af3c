//! OCI image layouts, as a folder or in an archive: finds the one image for this host.
//!
//! Called by `source::open`. OCI image-spec 1.1: "Image Layout", "Image Index", "Image Manifest".

use anyhow::{Result, bail};

use super::Wanted;
use super::convert::{Described, convert};
use super::document::{Configuration, Index, Manifest};
use super::files::Files;
use super::layers::{Layers, check_platform, pair};
use super::select::{Documents as _, Several, is_configuration, select};
use crate::digest::Digest;

/// The file that marks a layout.
pub const MARK: &str = "oci-layout";
/// The entry point of a layout.
pub const INDEX: &str = "index.json";

/// The image in `files` that `wanted` describes.
///
/// # Errors
/// If there is none or more than one, or a document is missing, altered or too large.
pub fn open(files: &Files, wanted: &Wanted<'_>) -> Result<Layers> {
    let index: Index = files.named_document(INDEX)?;
    let candidate = select(
        files,
        index,
        wanted.architecture,
        Several::Named(wanted.name),
    )?;
    let manifest: Manifest = files.document(&candidate.descriptor)?;
    if !is_configuration(&manifest.config.media_type) {
        bail!(
            "{} is not a container image: its configuration is of type {:?}",
            files.object(),
            manifest.config.media_type
        );
    }
    let configuration: Configuration = files.document(&manifest.config)?;
    check_platform(
        &configuration.platform,
        wanted.architecture,
        &files.object(),
    )?;
    let blobs = manifest
        .layers
        .iter()
        .map(|layer| {
            if layer.media_type.ends_with("+encrypted") {
                bail!("layer {} is encrypted", layer.digest);
            }
            let digest: Digest = layer.digest.parse()?;
            let is_there = files.has(&digest.blob_path());
            let blob = is_there.then(|| files.blob(layer)).transpose()?;
            Ok((blob.map(|(blob, _)| blob.into()), Some(digest)))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Layers {
        layers: pair(blobs, &configuration.rootfs.diff_ids, &files.object())?,
        digest: Some(candidate.descriptor.digest.parse()?),
        manifest: convert(&Described {
            name: candidate.names.first().map(String::as_str).or(wanted.name),
            fallback: wanted.stem,
            architecture: wanted.architecture,
            annotations: &manifest.annotations,
            configuration: &configuration,
        })?,
        names: candidate.names,
        history: configuration.history,
    })
}

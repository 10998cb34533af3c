//! Archives of `docker save`: `manifest.json` names a configuration and layers inside the archive.
//!
//! Called by `source::open`. The layers' digests are the configuration's diff ids; the configuration's own digest is
//! its file name, where the name is one.

use anyhow::{Context, Result, bail};

use super::Wanted;
use super::convert::{Described, convert};
use super::document::{self, Configuration, MAX_JSON_BYTES, SavedImage};
use super::files::{Files, check};
use super::layers::{Layers, check_platform, pair};
use super::names::clean;
use super::select::Documents as _;
use crate::digest::{Algorithm, Digest};

/// The file that marks such an archive.
pub const MANIFEST: &str = "manifest.json";

/// The image in `files` that `wanted` describes.
///
/// # Errors
/// If there is none or more than one, or a part is missing, altered or too large.
pub fn open(files: &Files, wanted: &Wanted<'_>) -> Result<Layers> {
    let saved: Vec<SavedImage> = files.named_document(MANIFEST)?;
    let image = choose(saved, wanted, &files.object())?;
    let configuration = configuration(files, &image.config)?;
    check_platform(
        &configuration.platform,
        wanted.architecture,
        &files.object(),
    )?;
    let blobs = image
        .layers
        .iter()
        .map(|name| Ok((Some(files.find(&inside(name)?)?.into()), None)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Layers {
        layers: pair(blobs, &configuration.rootfs.diff_ids, &files.object())?,
        digest: None,
        manifest: convert(&Described {
            name: image.repo_tags.first().map(String::as_str).or(wanted.name),
            fallback: wanted.stem,
            architecture: wanted.architecture,
            annotations: &std::collections::BTreeMap::new(),
            configuration: &configuration,
        })?,
        names: image.repo_tags,
        history: configuration.history,
    })
}

fn choose(mut saved: Vec<SavedImage>, wanted: &Wanted<'_>, object: &str) -> Result<SavedImage> {
    let names: Vec<_> = saved
        .iter()
        .flat_map(|image| image.repo_tags.clone())
        .collect();
    if saved.len() > 1 {
        saved.retain(|image| {
            wanted
                .name
                .is_some_and(|name| image.repo_tags.iter().any(|tag| tag == name))
        });
        if saved.len() != 1 {
            bail!(
                "{object} holds several images ({}); choose one with --name",
                names.join(", ")
            );
        }
    }
    saved
        .pop()
        .with_context(|| format!("{object} holds no image"))
}

fn configuration(files: &Files, name: &str) -> Result<Configuration> {
    let blob = files.find(&inside(name)?)?;
    let bytes = blob.read_all(MAX_JSON_BYTES)?;
    let base = name.rsplit('/').next().unwrap_or(name);
    let hex = base.strip_suffix(".json").unwrap_or(base);
    if let Ok(promised) = format!("sha256:{hex}").parse::<Digest>() {
        check(
            &Digest::of(Algorithm::Sha256, &bytes),
            &promised,
            blob.object(),
        )?;
    }
    document::parse(&bytes, blob.object())
}

fn inside(name: &str) -> Result<String> {
    clean(name).with_context(|| format!("{MANIFEST} names a file outside the archive: {name:?}"))
}

//! Images that podman and buildah have built or pulled, read where they keep them (containers/storage).
//!
//! Called by the store. Nothing is copied and nothing written there: the tar of each layer is put together while it is
//! merged, and hashed as any other. The indexes are locked while they are read, each layer while it is; a layer that is
//! removed between two of these is an error.

mod index;
mod lock;
mod place;
mod split;

use anyhow::{Context, Result, bail};

use super::Wanted;
use super::content::Content;
use super::convert::{Described, convert};
use super::document::{self, Configuration, Manifest};
use super::files::check;
use super::layers::{Layers, MAX_LAYERS, check_platform, pair};
use super::select::is_configuration;
use crate::digest::{Algorithm, Digest};
use index::{Entry, LayerEntry};

pub use place::Storage;
pub use split::Split;

/// The image that `reference` means in the first of `storages` that has it.
///
/// # Errors
/// If an index cannot be read, or the image is not for this host or damaged.
pub fn find(storages: &[Storage], reference: &str, wanted: &Wanted<'_>) -> Result<Option<Layers>> {
    for storage in storages {
        let looked = || format!("look for {reference} in {}", storage.root().display());
        if let Some(entry) = index::find(storage, reference).with_context(looked)? {
            let called = entry.names.first().map_or(reference, String::as_str);
            let object = format!("image {called} in {}", storage.root().display());
            let layers = load(storages, storage, &entry, called, wanted);
            return layers.with_context(|| format!("read {object}")).map(Some);
        }
    }
    Ok(None)
}

fn load(
    storages: &[Storage],
    storage: &Storage,
    entry: &Entry,
    called: &str,
    wanted: &Wanted<'_>,
) -> Result<Layers> {
    let folder = storage.documents(&entry.id);
    let bytes = index::document(&folder, "manifest")?;
    let manifest: Manifest =
        document::parse(&bytes, "its manifest (of a list of images, name one)")?;
    if !is_configuration(&manifest.config.media_type) {
        bail!(
            "it is not a container image: its configuration is of type {:?}",
            manifest.config.media_type
        );
    }
    let promised: Digest = manifest.config.digest.parse()?;
    let json = index::document(&folder, &promised.to_string())?;
    check(
        &Digest::of(promised.algorithm(), &json),
        &promised,
        "its configuration",
    )?;
    let configuration: Configuration = document::parse(&json, "its configuration")?;
    check_platform(&configuration.platform, wanted.architecture, called)?;
    let contents = contents(storages, &entry.layer, called)?;
    Ok(Layers {
        layers: pair(contents, &configuration.rootfs.diff_ids, called)?,
        digest: Some(Digest::of(Algorithm::Sha256, &bytes)),
        manifest: convert(&Described {
            name: entry.names.first().map(String::as_str).or(wanted.name),
            fallback: wanted.stem,
            architecture: wanted.architecture,
            annotations: &manifest.annotations,
            configuration: &configuration,
        })?,
        names: entry.names.clone(),
        history: configuration.history,
    })
}

/// The layers from `top` down, wherever they lie, lowest first.
fn contents(
    storages: &[Storage],
    top: &str,
    called: &str,
) -> Result<Vec<(Option<Content>, Option<Digest>)>> {
    let indexes = storages
        .iter()
        .map(|storage| Ok((storage, index::layers(storage)?)))
        .collect::<Result<Vec<_>>>()?;
    let find = |id: &str| -> Option<(&Storage, &LayerEntry)> {
        indexes
            .iter()
            .find_map(|(storage, layers)| Some((*storage, layers.get(id)?)))
    };
    let (mut contents, mut next) = (Vec::new(), top);
    while !next.is_empty() {
        if contents.len() == MAX_LAYERS {
            bail!("it has more than {MAX_LAYERS} layers, or they go in a circle");
        }
        let (storage, layer) = find(next)
            .with_context(|| format!("layer {next} is gone: the image was removed meanwhile"))?;
        let split = Split::new(storage.clone(), next.to_owned(), layer.diff_size, called);
        contents.push((Some(Content::Split(split)), None));
        next = &layer.parent;
    }
    contents.reverse();
    Ok(contents)
}

//! A stage 1 that is an image of the store: its files are put into a folder, as the caller's where he is not root.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use contract::annotation;
use image::{Image, Kind, Store};

use super::kept::{Held, once};
use crate::images;
use crate::pods::make_directory;
use crate::settings::Settings;

/// The folder with the image's files.
///
/// # Errors
/// If the image is no stage 1, is damaged, or cannot be unpacked.
pub fn unpack(image: &Image, settings: &Settings) -> Result<Held> {
    let name = &image.manifest.name;
    let run = format!("{}run", annotation::ENTRYPOINT_PREFIX);
    ensure!(
        image.kind == Kind::Aci,
        "image {name} of the store is no stage 1, which is an App Container image"
    );
    ensure!(
        annotation::find(&image.manifest.annotations, &run).is_some(),
        "image {name} of the store is no stage 1: it names no entrypoint to run pods by"
    );
    once(&settings.dir, &image.id, |target| {
        images::store(settings)
            .and_then(|store| fill(&store, image, target))
            .with_context(|| format!("take stage 1 {name} out of the store"))
    })
}

fn fill(store: &Store, image: &Image, target: &Path) -> Result<()> {
    let manifest = serde_json::to_vec(&image.manifest)?;
    fs::write(target.join("manifest"), manifest)?;
    let rootfs = target.join("rootfs");
    make_directory(&rootfs)?;
    store.render(image, &rootfs)
}

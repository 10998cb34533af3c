//! A stage 1 that is an image of the store: its files are copied out of the image's EROFS file, which only root can mount.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use contract::annotation;
use image::Image;

use super::copy::copy_tree;
use super::unpack::once;
use crate::directories::with_image;
use crate::pods::make_directory;

/// The directory with the image's files.
///
/// # Errors
/// If the image is no stage 1, the caller not root, or it cannot be mounted and copied.
pub fn unpack(image: &Image, data: &Path) -> Result<PathBuf> {
    let name = &image.manifest.name;
    let run = format!("{}run", annotation::ENTRYPOINT_PREFIX);
    ensure!(
        annotation::find(&image.manifest.annotations, &run).is_some(),
        "image {name} of the store is no stage 1: it names no entrypoint to run pods by"
    );
    once(data, &image.id, |target| {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "stage 1 {name} is an image of the store, and only root may mount it: --stage1=PATH names its folder or .aci file"
        );
        fill(image, target).with_context(|| format!("take stage 1 {name} out of the store"))
    })
}

fn fill(image: &Image, target: &Path) -> Result<()> {
    fs::write(
        target.join("manifest"),
        serde_json::to_vec(&image.manifest)?,
    )?;
    let mounted = target.join("image");
    make_directory(&mounted)?;
    with_image(&image.files(), &mounted, || {
        copy_tree(&mounted, &target.join("rootfs"), false, &[])
    })
}

//! `fairing image render` and `extract`: the files of an image as a tree on the host.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use image::Store;

use super::find;
use crate::out::OutFolder;

/// What both say of the files.
const AFTER_HELP: &str = "Under root the files are just as in the image, with owners, set-id bits, devices and extended attributes: \
make DIR where only root can go. Without root they are the caller's, without set-id bits, devices and all that is root's.";

/// Makes the root file system of an image in a folder
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Render {
    /// Replace DIR if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Name, id or its beginning
    pub image: String,
    /// The folder to make; meanwhile it is called DIR.part
    #[arg(value_name = "DIR")]
    pub out: PathBuf,
}

/// Makes the manifest of an image and its root file system in a folder
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Extract {
    /// The root file system alone, as DIR itself
    #[arg(long)]
    pub rootfs_only: bool,
    #[command(flatten)]
    pub render: Render,
}

impl Render {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        let out = OutFolder::create(&self.out, self.overwrite)?;
        store.render(&image, out.part())?;
        out.keep()?;
        Ok(0)
    }
}

impl Extract {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        if self.rootfs_only {
            return self.render.run(store);
        }
        let image = find(store, &self.render.image)?;
        let out = OutFolder::create(&self.render.out, self.render.overwrite)?;
        let manifest = out.part().join("manifest");
        fs::write(&manifest, serde_json::to_vec(&image.manifest)?)
            .with_context(|| format!("write {}", manifest.display()))?;
        let rootfs = out.part().join("rootfs");
        fs::create_dir(&rootfs).with_context(|| format!("make folder {}", rootfs.display()))?;
        store.render(&image, &rootfs)?;
        out.keep()?;
        Ok(0)
    }
}

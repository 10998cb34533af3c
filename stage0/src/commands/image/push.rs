//! `fairing image push`: an image of the store goes to a registry.

use anyhow::{Context as _, Result};
use clap::Args;
use image::Store;

use super::{export, find};
use crate::cli::{PullPolicy, RegistryFlags};
use crate::registries::{self, Pulling};
use crate::settings::Settings;

/// Sends an image to a registry, and prints the digest of its manifest
#[derive(Debug, Args)]
#[command(after_help = "Whatever it was made of, the image is one layer.")]
pub struct Push {
    /// Name, id or its beginning
    pub image: String,
    /// [docker://]HOST/NAME[:TAG] [default: the image's name]
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// No progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[command(flatten)]
    pub registry: RegistryFlags,
}

impl Push {
    pub(super) fn run(&self, store: &Store, settings: &Settings) -> Result<i32> {
        let image = find(store, &self.image)?;
        let destination = match &self.destination {
            Some(destination) => destination,
            None => export::name(&image, &self.image).with_context(|| {
                format!("image {} has no name; say where it is to go", image.id)
            })?,
        };
        let pulling = Pulling::new(PullPolicy::Never, &self.registry, settings);
        let digest = registries::push(store, &image, destination, pulling, self.quiet)?;
        crate::print_line(&digest)?;
        Ok(0)
    }
}

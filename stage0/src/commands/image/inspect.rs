//! `fairing image inspect`: the manifest of an image.

use anyhow::Result;
use clap::Args;

use super::find;
use super::json::Json;
use crate::cli::Format;

/// Prints the manifest of an image
#[derive(Debug, Args)]
pub struct Inspect {
    /// Name, id or its beginning
    pub image: String,
    /// With what the store knows of it, as JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

impl Inspect {
    pub(super) fn run(&self, store: &image::Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        match self.format {
            Some(format) => {
                let vouched = store.vouched(&image)?;
                format.print(&Json::whole(&image, &vouched))?;
            }
            None => Format::JsonPretty.print(&image.manifest)?,
        }
        Ok(0)
    }
}

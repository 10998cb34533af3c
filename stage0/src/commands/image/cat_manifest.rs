//! `fairing image cat-manifest`: the manifest of an image, alone.

use anyhow::Result;
use clap::Args;
use image::Store;

use super::find;
use crate::cli::Format;

/// Prints the manifest of an image
#[derive(Debug, Args)]
pub struct CatManifest {
    /// On several lines [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub pretty_print: bool,
    /// Name, id or its beginning
    pub image: String,
}

impl CatManifest {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        let format = match self.pretty_print {
            true => Format::JsonPretty,
            false => Format::Json,
        };
        format.print(&image.manifest)?;
        Ok(0)
    }
}

//! `fairing image tag` and `untag`: names of images.

use anyhow::Result;
use clap::Args;
use image::Store;

use super::find;

/// Gives an image further names
#[derive(Debug, Args)]
pub struct Tag {
    /// Name, id or its beginning
    pub image: String,
    /// Names to give; one that another image has is taken from it
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Takes names from an image, which stays
#[derive(Debug, Args)]
pub struct Untag {
    /// Name, id or its beginning
    pub image: String,
    /// Names to take [default: all that it has]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

impl Tag {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        store.tag(&find(store, &self.image)?, &self.names)?;
        Ok(0)
    }
}

impl Untag {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        let names = match self.names.as_slice() {
            [] => &image.names,
            names => names,
        };
        store.untag(&image, names)?;
        Ok(0)
    }
}

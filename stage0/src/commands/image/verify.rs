//! `fairing image verify`: whether images are still what was imported.

use anyhow::Result;
use clap::Args;
use image::Store;

use super::find;

/// Compares the files of images with the digests that their imports recorded
#[derive(Debug, Args)]
pub struct Verify {
    /// Names, ids or their beginnings
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

impl Verify {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        let mut code = 0;
        for word in &self.images {
            let verified = find(store, word).and_then(|image| {
                store.verify(&image)?;
                crate::print_line(&image.id)
            });
            if let Err(error) = verified {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
        Ok(code)
    }
}

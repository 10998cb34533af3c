//! `fairing image rm`: images leave the store.

use anyhow::Result;
use clap::Args;

use super::find;

/// Removes images; pods made of them keep running
#[derive(Debug, Args)]
pub struct Rm {
    /// Names, ids or their beginnings
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

impl Rm {
    pub(super) fn run(&self, store: &image::Store) -> Result<i32> {
        let mut code = 0;
        for name in &self.images {
            let removed = find(store, name).and_then(|image| {
                store.remove(&image)?;
                crate::print_line(&image.id)
            });
            if let Err(error) = removed {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
        Ok(code)
    }
}

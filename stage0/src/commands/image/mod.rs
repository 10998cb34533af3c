//! `fairing image`: the image store; a file for each subcommand.

mod import;
mod inspect;
mod json;
mod list;
mod rm;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use super::Context;
use crate::images;

pub use import::Import;
pub use inspect::Inspect;
pub use list::List;
pub use rm::Rm;

/// Imports, lists and removes images
#[derive(Debug, Subcommand)]
pub enum Image {
    #[command(visible_alias = "fetch")]
    Import(Import),
    List(List),
    #[command(visible_alias = "cat-manifest")]
    Inspect(Inspect),
    Rm(Rm),
}

impl Image {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// The store's.
    pub fn run(self, context: &Context) -> Result<i32> {
        let store = images::store(&context.settings)?;
        match self {
            Self::Import(import) => import.run(&store),
            Self::List(list) => list.run(&store),
            Self::Inspect(inspect) => inspect.run(&store),
            Self::Rm(rm) => rm.run(&store),
        }
    }
}

fn find(store: &image::Store, name: &str) -> Result<image::Image> {
    store
        .find(name)?
        .with_context(|| format!("no image is called {name:?}; `fairing image list` shows all"))
}

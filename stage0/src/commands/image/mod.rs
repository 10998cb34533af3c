//! `fairing image`: the image store; a file for each subcommand.

mod cat_manifest;
mod df;
mod export;
mod gc;
mod history;
mod import;
mod inspect;
mod json;
mod list;
mod pull;
mod push;
mod render;
mod rm;
mod tag;
mod verify;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use super::Context;
use crate::images;

pub use cat_manifest::CatManifest;
pub use df::Df;
pub use export::Export;
pub use gc::Gc;
pub use history::History;
pub use import::Import;
pub use inspect::Inspect;
pub(super) use json::Json;
pub use list::List;
pub use pull::Pull;
pub use push::Push;
pub use render::{Extract, Render};
pub use rm::Rm;
pub use tag::{Tag, Untag};
pub use verify::Verify;

/// Looks after the images of the store
#[derive(Debug, Subcommand)]
pub enum Image {
    #[command(visible_alias = "fetch")]
    Pull(Pull),
    Push(Push),
    Import(Import),
    List(List),
    Inspect(Inspect),
    CatManifest(CatManifest),
    History(History),
    Tag(Tag),
    Untag(Untag),
    Export(Export),
    Render(Render),
    Extract(Extract),
    Verify(Verify),
    Rm(Rm),
    Gc(Gc),
    Df(Df),
}

impl Image {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// The store's.
    pub fn run(self, context: &Context) -> Result<i32> {
        let store = images::store(&context.settings)?;
        match self {
            Self::Pull(pull) => pull.run(&store, &context.settings),
            Self::Push(push) => push.run(&store, &context.settings),
            Self::Import(import) => import.run(&store, &context.settings),
            Self::List(list) => list.run(&store),
            Self::Inspect(inspect) => inspect.run(&store),
            Self::CatManifest(cat) => cat.run(&store),
            Self::History(history) => history.run(&store),
            Self::Tag(tag) => tag.run(&store),
            Self::Untag(untag) => untag.run(&store),
            Self::Export(export) => export.run(&store),
            Self::Render(render) => render.run(&store),
            Self::Extract(extract) => extract.run(&store),
            Self::Verify(verify) => verify.run(&store),
            Self::Rm(rm) => rm.run(&store, &context.pods),
            Self::Gc(gc) => gc.run(&store, &context.pods, &context.settings.dir),
            Self::Df(df) => df.run(&store, &context.pods),
        }
    }
}

fn find(store: &image::Store, name: &str) -> Result<image::Image> {
    store
        .find(name)?
        .with_context(|| format!("no image is called {name:?}; `fairing image list` shows all"))
}

//! `fairing image history`: the steps in which an image was made.

use anyhow::Result;
use clap::Args;
use image::{Image, LayerRef, Store};
use serde::Serialize;

use super::find;
use crate::table::{TableFlags, bytes, printable};

/// Shows in which steps an image was made, the last first
#[derive(Debug, Args)]
#[command(
    after_help = "Known of OCI and docker images and of what `fairing commit` has made; an image of another kind, and one that an earlier \
    fairing has imported, has none. SIZE is what the data of a layer's files take; small files are kept with the image."
)]
pub struct History {
    /// Name, id or its beginning
    pub image: String,
    #[command(flatten)]
    pub table: TableFlags,
}

/// A step as JSON.
#[derive(Serialize)]
struct Step<'a> {
    #[serde(flatten)]
    step: &'a image::History,
    /// What the data of its layer take, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl History {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        let titles = ["CREATED", "CREATED BY", "SIZE", "AUTHOR", "COMMENT"].map(str::to_owned);
        let steps = steps(&image);
        let rows = steps.iter().map(|Step { step, size }| {
            let size = size.map(bytes).unwrap_or_default();
            let cells = [
                &step.created,
                &step.created_by,
                &size,
                &step.author,
                &step.comment,
            ];
            cells.map(|text| printable(text))
        });
        self.table.print(&steps, titles, rows)?;
        Ok(0)
    }
}

/// The steps, last first, each that has made a layer with that one's size; without sizes where there are not as many.
fn steps(image: &Image) -> Vec<Step<'_>> {
    let made = image.history.iter().filter(|step| !step.empty_layer);
    let is_known = made.count() == image.layers.len();
    let mut layers = image.layers.iter().filter(|_| is_known);
    let steps = image.history.iter().map(|step| Step {
        size: (!step.empty_layer)
            .then(|| layers.next().map(LayerRef::data_bytes))
            .flatten(),
        step,
    });
    let mut steps: Vec<_> = steps.collect();
    steps.reverse();
    steps
}

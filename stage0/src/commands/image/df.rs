//! `fairing image df`: what the store takes of the disk, and what of it could go.

use anyhow::Result;
use clap::Args;
use image::{LayerSpace, Store};
use serde::Serialize;

use crate::images::users;
use crate::pods::Pods;
use crate::table::TableFlags;

/// Shows what the store takes of the disk, and what of it no pod uses
#[derive(Debug, Args)]
#[command(
    after_help = "A layer that only one image has counts as the image's. An image's file is one with those of its pods: each takes its space once, and `image rm --force` frees it only when \
    they are gone."
)]
pub struct Df {
    #[command(flatten)]
    pub table: TableFlags,
}

/// A part of the store.
#[derive(Serialize)]
struct Row {
    /// An image's id, or what else it is.
    what: String,
    names: Vec<String>,
    /// How many pods use it.
    pods: usize,
    /// Bytes.
    size: u64,
    /// Bytes that nobody would miss.
    reclaimable: u64,
}

impl Df {
    pub(super) fn run(&self, store: &Store, pods: &Pods) -> Result<i32> {
        let users = users(pods)?;
        let mut rows = Vec::new();
        let images = store.list()?;
        let layers = store.layer_space(&images)?;
        for image in images {
            let own = layers.iter().filter(|layer| layer.images == [&*image.id]);
            let own: u64 = own.map(|layer| layer.bytes).sum();
            let (pods, size) = (
                users.get(&image.id).map_or(0, Vec::len),
                store.image_space(&image)? + own,
            );
            rows.push(Row {
                what: image.id,
                names: image.names,
                pods,
                size,
                reclaimable: if pods == 0 { size } else { 0 },
            });
        }
        let other = |what: &str, size, reclaimable| Row {
            what: what.to_owned(),
            names: Vec::new(),
            pods: 0,
            size,
            reclaimable,
        };
        let shared = layers.iter().filter(|layer| layer.images.len() != 1);
        let is_free = |layer: &&LayerSpace| !layer.images.iter().any(|id| users.contains_key(id));
        rows.push(other(
            "shared layers",
            shared.clone().map(|layer| layer.bytes).sum(),
            shared.filter(is_free).map(|layer| layer.bytes).sum(),
        ));
        let blobs = store.blob_space()?;
        rows.push(other("downloads", blobs, blobs));
        rows.push(other("in progress", store.work_space()?, 0));
        let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum();
        rows.push(other(
            "all",
            sum(|row| row.size),
            sum(|row| row.reclaimable),
        ));
        let titles = ["WHAT", "NAMES", "PODS", "SIZE", "RECLAIMABLE"].map(str::to_owned);
        self.table
            .print(&rows, titles, rows.iter().map(Row::cells))?;
        Ok(0)
    }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let mib = |bytes: u64| format!("{}MiB", bytes.div_ceil(1 << 20));
        [
            // Of an id, `sha512-` and twelve digits.
            self.what.get(..19).unwrap_or(&self.what).to_owned(),
            self.names.join(","),
            self.pods.to_string(),
            mib(self.size),
            mib(self.reclaimable),
        ]
    }
}

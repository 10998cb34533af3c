//! `fairing image list`: the images of the store as a table.

use std::cmp::Ordering;
use std::time::SystemTime;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::json::Json;
use crate::table::TableFlags;
use crate::times;

/// Lists the images of the store
#[derive(Debug, Args)]
pub struct List {
    /// Columns to show
    #[arg(long, value_enum, value_name = "FIELD,...", value_delimiter = ',', default_values = ["id", "name", "kind", "size", "importtime"])]
    pub fields: Vec<Field>,
    /// Columns to sort by, the first before the second
    #[arg(
        long,
        value_enum,
        value_name = "FIELD,...",
        value_delimiter = ',',
        default_value = "importtime"
    )]
    pub sort: Vec<Field>,
    /// Order in which they are sorted
    #[arg(long, value_enum, value_name = "ORDER", default_value = "asc")]
    pub order: Order,
    /// Whole ids and exact times
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub table: TableFlags,
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Field {
    Id,
    Name,
    Kind,
    Size,
    #[value(name = "importtime")]
    ImportTime,
}

/// Smallest or largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    Asc,
    Desc,
}

impl List {
    pub(super) fn run(&self, store: &image::Store) -> Result<i32> {
        let mut images = store.list()?;
        images.sort_by(|a, b| self.compare(a, b));
        let titles = self.fields.iter().map(|field| field.title().to_owned());
        let rows = images.iter().map(|image| {
            let cells = self.fields.iter().map(|field| field.of(image, self.full));
            cells.collect::<Vec<_>>()
        });
        let values: Vec<_> = images.iter().map(Json::of).collect();
        self.table.print(&values, titles.collect(), rows)?;
        Ok(0)
    }

    fn compare(&self, a: &image::Image, b: &image::Image) -> Ordering {
        let ascending = self
            .sort
            .iter()
            .map(|field| field.compare(a, b))
            .fold(Ordering::Equal, Ordering::then);
        match self.order {
            Order::Asc => ascending,
            Order::Desc => ascending.reverse(),
        }
    }
}

impl Field {
    fn title(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Name => "NAME",
            Self::Kind => "KIND",
            Self::Size => "SIZE",
            Self::ImportTime => "IMPORT TIME",
        }
    }

    fn of(self, image: &image::Image, full: bool) -> String {
        match self {
            Self::Id if full => image.id.clone(),
            // `sha512-` and twelve digits.
            Self::Id => image.id.get(..19).unwrap_or(&image.id).to_owned(),
            Self::Name => image.names.join(","),
            Self::Kind => kind(image.kind).to_owned(),
            Self::Size => format!("{}MiB", image.rootfs_bytes.div_ceil(1 << 20)),
            Self::ImportTime if full => times::utc(image.imported),
            Self::ImportTime => times::ago(image.imported, SystemTime::now()),
        }
    }

    fn compare(self, a: &image::Image, b: &image::Image) -> Ordering {
        match self {
            Self::Id => a.id.cmp(&b.id),
            Self::Name => a.names.cmp(&b.names),
            Self::Kind => kind(a.kind).cmp(kind(b.kind)),
            Self::Size => a.rootfs_bytes.cmp(&b.rootfs_bytes),
            Self::ImportTime => a.imported.cmp(&b.imported),
        }
    }
}

fn kind(kind: image::Kind) -> &'static str {
    match kind {
        image::Kind::Oci => "oci",
        image::Kind::Aci => "aci",
        image::Kind::RootFs => "rootfs",
    }
}

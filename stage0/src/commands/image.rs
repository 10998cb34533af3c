//! `fairing image`: the image store.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Context;
use crate::cli::{Format, parse_bytes};
use crate::images::{self, Importing};
use crate::table::TableFlags;
use crate::times;

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

/// Imports images
#[derive(Debug, Args)]
pub struct Import {
    /// An OCI layout, a `docker save` archive, an ACI, or a root file system: a folder or a tar, told apart by content
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Name to give; of an archive with several images, the one to take
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Refuse an image that would take more
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_image_size: Option<String>,
    /// No progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

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

/// Prints the manifest of an image
#[derive(Debug, Args)]
pub struct Inspect {
    /// Name, id or its beginning
    pub image: String,
    /// With what the store knows of it, as JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

/// Removes images; pods made of them keep running
#[derive(Debug, Args)]
pub struct Rm {
    /// Names, ids or their beginnings
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// An image as JSON.
#[derive(Serialize)]
struct Json<'a> {
    id: &'a str,
    names: &'a [String],
    kind: image::Kind,
    size: u64,
    /// Nanoseconds since 1970.
    import_time: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a contract::ImageManifest>,
}

impl<'a> Json<'a> {
    fn of(image: &'a image::Image) -> Self {
        Self {
            id: &image.id,
            names: &image.names,
            kind: image.kind,
            size: image.rootfs_bytes,
            import_time: times::nanoseconds(image.imported),
            digest: image.digest.as_deref(),
            manifest: None,
        }
    }
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

impl Import {
    fn run(&self, store: &image::Store) -> Result<i32> {
        let importing = Importing {
            max_image_size: self.max_image_size.as_deref(),
            quiet: self.quiet,
        };
        for path in &self.paths {
            let image = images::import(store, path, self.name.as_deref(), importing)?;
            match self.format {
                Some(format) => format.print(&Json::of(&image))?,
                None => crate::print_line(&image.id)?,
            }
        }
        Ok(0)
    }
}

impl List {
    fn run(&self, store: &image::Store) -> Result<i32> {
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

impl Inspect {
    fn run(&self, store: &image::Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        match self.format {
            Some(format) => format.print(&Json {
                manifest: Some(&image.manifest),
                ..Json::of(&image)
            })?,
            None => Format::JsonPretty.print(&image.manifest)?,
        }
        Ok(0)
    }
}

impl Rm {
    fn run(&self, store: &image::Store) -> Result<i32> {
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

fn find(store: &image::Store, name: &str) -> Result<image::Image> {
    store
        .find(name)?
        .with_context(|| format!("no image is called {name:?}; `fairing image list` shows all"))
}

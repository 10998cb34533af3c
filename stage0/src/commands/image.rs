//! `fairing image`: the image store.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use crate::cli::{Format, parse_bytes};
use crate::images::{self, Importing};
use crate::{table, times};

/// Imports, lists and removes images
#[derive(Debug, Subcommand)]
pub enum Image {
    Import(Import),
    List(List),
    #[command(visible_alias = "cat-manifest")]
    Inspect(Inspect),
    Rm(Rm),
}

/// Imports images: an OCI layout or `docker save` archive, an ACI, or a root file system, each a folder or a tar
#[derive(Debug, Args)]
pub struct Import {
    /// What to import
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
    /// As JSON
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// Lists the images of the store
#[derive(Debug, Args)]
pub struct List {
    /// Whole ids and exact times
    #[arg(long)]
    pub full: bool,
    /// No line of titles
    #[arg(long)]
    pub no_legend: bool,
    /// As JSON
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// Prints the manifest of an image
#[derive(Debug, Args)]
pub struct Inspect {
    /// Name, id or its beginning
    pub image: String,
    /// With what the store knows of it, as JSON
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

/// Removes images; pods made of them keep running
#[derive(Debug, Args)]
pub struct Rm {
    /// Names, ids or their beginnings
    #[arg(required = true)]
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
        let images = store.list()?;
        if let Some(format) = self.format {
            format.print(&images.iter().map(Json::of).collect::<Vec<_>>())?;
            return Ok(0);
        }
        let mut rows = Vec::new();
        if !self.no_legend {
            rows.push(["ID", "NAME", "KIND", "SIZE", "IMPORT TIME"].map(str::to_owned));
        }
        let now = std::time::SystemTime::now();
        for image in &images {
            let (id, imported) = if self.full {
                (image.id.as_str(), times::utc(image.imported))
            } else {
                // `sha512-` and twelve digits.
                (
                    image.id.get(..19).unwrap_or(&image.id),
                    times::ago(image.imported, now),
                )
            };
            rows.push([
                id.to_owned(),
                image.names.join(","),
                kind(image.kind).to_owned(),
                format!("{}MiB", image.rootfs_bytes.div_ceil(1 << 20)),
                imported,
            ]);
        }
        table::print(&rows)?;
        Ok(0)
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

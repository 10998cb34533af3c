//! `fairing image export`: an image leaves the store for other programs.

use std::fs::{self, Permissions};
use std::io::{BufWriter, Write, stdout};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use image::{Archive, Image, Store};

use super::find;
use crate::out::{Out, OutFolder};

/// Writes an image for other programs
#[derive(Debug, Args)]
#[command(
    after_help = "Whatever it was made of, the image is one layer. The same image gives the same bytes.\n\n\
    Example:\n  fairing image export --format=docker-archive tool - | podman load"
)]
pub struct Export {
    /// aci, oci (a folder), oci-archive or docker-archive
    #[arg(
        long,
        value_enum,
        default_value = "aci",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub format: Form,
    /// Replace OUT if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Name, id or its beginning
    pub image: String,
    /// The file or folder to make; meanwhile it is called OUT.part; - is stdout
    pub out: PathBuf,
}

/// The form that an image is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// An App Container Image, compressed by gzip.
    Aci,
    /// An OCI layout.
    Oci,
    /// An OCI layout in a tar.
    OciArchive,
    /// As `docker save` writes it.
    DockerArchive,
}

impl Export {
    pub(super) fn run(&self, store: &Store) -> Result<i32> {
        let image = find(store, &self.image)?;
        let name = name(&image, &self.image);
        let form = match self.form() {
            None => return self.layout(store, &image, name),
            Some(form) => form,
        };
        if self.out == Path::new("-") {
            let mut to = BufWriter::new(stdout().lock());
            store.export(&image, name, form, &mut to)?;
            to.flush().context("write to stdout")?;
            return Ok(0);
        }
        let out = Out::create(&self.out, self.overwrite)?;
        let mut to = BufWriter::new(out.file());
        store.export(&image, name, form, &mut to)?;
        to.flush()
            .with_context(|| format!("write {}", out.part().display()))?;
        drop(to);
        out.keep()?;
        Ok(0)
    }

    fn form(&self) -> Option<Archive> {
        match self.format {
            Form::Oci => None,
            Form::Aci => Some(Archive::Aci),
            Form::OciArchive => Some(Archive::Oci),
            Form::DockerArchive => Some(Archive::Docker),
        }
    }

    fn layout(&self, store: &Store, image: &Image, name: Option<&str>) -> Result<i32> {
        let out = OutFolder::create(&self.out, self.overwrite)?;
        store.write_layout(image, name, out.part())?;
        // As files are that commands make.
        fs::set_permissions(out.part(), Permissions::from_mode(0o755))
            .with_context(|| format!("let others read {}", out.part().display()))?;
        out.keep()?;
        Ok(0)
    }
}

/// What the image is called by the word that names it, or at all.
pub(super) fn name<'a>(image: &'a Image, word: &str) -> Option<&'a str> {
    let is_meant = |name: &&String| *name == word || name.strip_suffix(":latest") == Some(word);
    let names = &image.names;
    let name = names.iter().find(is_meant).or(names.first());
    name.map(String::as_str)
}

//! Images out of the store. The store is only read, but for a spool file without a name.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::workshop::Workshop;
use super::{Image, Store};
use crate::outgoing::{Files, Parts, aci, docker, oci, render};

/// The archives that an image can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// An OCI layout in a tar.
    Oci,
    /// As `docker save` writes it.
    Docker,
    /// An App Container Image, compressed by gzip.
    Aci,
}

impl Store {
    /// Writes `image`, called `name`, to `to`; the same image gives the same bytes.
    ///
    /// # Errors
    /// If the image is damaged, or something cannot be written.
    pub fn export(
        &self,
        image: &Image,
        name: Option<&str>,
        form: Archive,
        to: &mut dyn Write,
    ) -> Result<()> {
        let desk = Workshop::unique(&self.place.tmp())?;
        let spool = || desk.unlinked("spool");
        match form {
            Archive::Oci => oci(image, name, spool()?, Parts::archive(to)).map(drop),
            Archive::Docker => docker(image, name, spool()?, Parts::archive(to)),
            Archive::Aci => aci(image, to),
        }
        .with_context(|| format!("export image {}", image.id))
    }

    /// Makes an OCI layout of `image`, called `name`, in `folder`, which is made if it is not there; gives the digest of its
    /// manifest.
    ///
    /// # Errors
    /// If the image is damaged, or something cannot be written; then the folder holds a part of it.
    pub fn write_layout(&self, image: &Image, name: Option<&str>, folder: &Path) -> Result<String> {
        let desk = Workshop::unique(&self.place.tmp())?;
        let written = desk.unlinked("spool").and_then(|spool| {
            let parts = Parts::folder(folder)?;
            oci(image, name, spool, parts)
        });
        written.with_context(|| format!("export image {} to {}", image.id, folder.display()))
    }

    /// Makes the files of `image` in `folder`, which is empty: under root just as the image has them, else as the caller's, without
    /// devices, set-id bits and what else is root's.
    ///
    /// # Errors
    /// If the image is damaged, or something cannot be made; what was made by then stays.
    pub fn render(&self, image: &Image, folder: &Path) -> Result<()> {
        let rendered = Files::of(image).and_then(|files| render(&files, folder));
        let rendered = rendered.with_context(|| {
            format!(
                "put the files of image {} into {}",
                image.id,
                folder.display()
            )
        })?;
        rendered.tell();
        Ok(())
    }
}

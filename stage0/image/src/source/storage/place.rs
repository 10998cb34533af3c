//! Where containers/storage keeps what: one folder for each kind of thing, named after the driver that lays out layers.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::lock::ReadLock;
use crate::blob::Blob;

/// How layers are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// A folder with what the layer changes.
    Overlay,
    /// A folder with the whole tree up to the layer.
    Vfs,
}

/// A folder in which podman, buildah and skopeo keep images, as one driver has laid it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    root: PathBuf,
    driver: Driver,
}

impl Storage {
    /// What of images there is in `root`, by the driver so called or by any.
    ///
    /// # Errors
    /// If the driver is one whose layers cannot be read here.
    pub fn in_folder(root: &Path, driver: Option<&str>) -> Result<Vec<Self>> {
        let drivers = match driver {
            None => vec![Driver::Overlay, Driver::Vfs],
            Some("overlay" | "overlay2") => vec![Driver::Overlay],
            Some("vfs") => vec![Driver::Vfs],
            Some(other) => bail!(
                "layers of the storage driver {other:?} in {} cannot be read here, only those of overlay and vfs; \
                 `podman save NAME | fairing image import -` takes an image",
                root.display()
            ),
        };
        let storages = drivers.into_iter().map(|driver| Self {
            root: root.to_owned(),
            driver,
        });
        Ok(storages
            .filter(|storage| storage.kind("images").join("images.json").exists())
            .collect())
    }

    /// Where it lies, for errors.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn name(&self) -> &'static str {
        match self.driver {
            Driver::Overlay => "overlay",
            Driver::Vfs => "vfs",
        }
    }

    fn kind(&self, kind: &str) -> PathBuf {
        self.root.join(format!("{}-{kind}", self.name()))
    }

    /// Keeps who writes away from the index of images, or of layers.
    pub(super) fn lock(&self, kind: &str) -> Result<ReadLock> {
        ReadLock::take(&self.kind(kind).join(format!("{kind}.lock")))
    }

    /// The index of images, or of layers.
    pub(super) fn index(&self, kind: &str) -> Result<Blob> {
        Blob::open(&self.kind(kind).join(format!("{kind}.json")))
    }

    /// The folder with documents of the image `id`.
    pub(super) fn documents(&self, id: &str) -> PathBuf {
        self.kind("images").join(id)
    }

    /// What a layer's tar holds beside the content of files.
    pub(super) fn headers(&self, layer: &str) -> PathBuf {
        self.kind("layers").join(format!("{layer}.tar-split.gz"))
    }

    /// The folder with a layer's files.
    pub(super) fn files(&self, layer: &str) -> PathBuf {
        match self.driver {
            Driver::Overlay => self.root.join("overlay").join(layer).join("diff"),
            Driver::Vfs => self.root.join("vfs/dir").join(layer),
        }
    }
}

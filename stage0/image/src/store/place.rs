//! Where everything lies in the store. The one place that knows it:
//!
//! ```text
//! version                     format version of the store, decimal
//! images/ID/rootfs.erofs      the image's files; read-only, hard-linked into pods
//! images/ID/index.erofs       the same for an OCI image, to be read as if the data of its layers followed
//! images/ID/manifest          appc image manifest, JSON
//! images/ID/record.json       kind, digest and time of the import
//! images/ID/vouched           who had signed it when it was fetched, JSON; missing if it was not verified
//! layers/DIFFID/data          the data of a layer's files; read-only, hard-linked into pods (see `store::layers`)
//! layers/DIFFID/journal       what the layer does to those below it
//! layers/DIFFID/record.json   size and digests of these
//! names/NAME                  the ID that NAME stands for; NAME is escaped (see `store::names`)
//! sources/KEY                 the ID of the image that a tar became (see `store::known`)
//! blobs/ALGORITHM/HEX         blobs that were fetched from registries, kept for other images (see crate `registry`)
//! downloads/KEY/              what has arrived of the image at a URL; whoever fetches looks after it
//! tmp/X/                      work in progress, held by a flock on the folder X; what nobody holds is rubbish
//! ```

use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Format version that this code reads and writes.
pub const FORMAT_VERSION: &str = "1";

/// The files of an image.
pub const ROOTFS: &str = "rootfs.erofs";
/// The same, where data lie in layers.
pub const INDEX: &str = "index.erofs";
/// The data of a layer.
pub const LAYER_DATA: &str = "data";
/// What a layer does.
pub const LAYER_JOURNAL: &str = "journal";
/// The description of an image.
pub const MANIFEST: &str = "manifest";
/// What the store knows besides.
pub const RECORD: &str = "record.json";
/// Who had signed the image.
pub const VOUCHED: &str = "vouched";

/// What a layer's folder is called.
pub fn layer_name(diff_id: &Digest) -> String {
    diff_id.to_string().replace(':', "-")
}

/// A store's folder.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// The store in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self(dir.to_path_buf())
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The file with the format version.
    pub fn version(&self) -> PathBuf {
        self.0.join("version")
    }

    /// All images.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// The image `id`.
    pub fn image(&self, id: &str) -> PathBuf {
        self.images().join(id)
    }

    /// All layers. A change of how their data or journals are written needs another name.
    pub fn layers(&self) -> PathBuf {
        self.0.join("layers")
    }

    /// The layer whose uncompressed tar has this digest.
    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(layer_name(diff_id))
    }

    /// All names.
    pub fn names(&self) -> PathBuf {
        self.0.join("names")
    }

    /// Tars imported before.
    pub fn sources(&self) -> PathBuf {
        self.0.join("sources")
    }

    /// Blobs fetched from registries.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Images of URLs, on their way.
    pub fn downloads(&self) -> PathBuf {
        self.0.join("downloads")
    }

    /// Work in progress.
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

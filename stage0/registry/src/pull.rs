//! An image that a registry has, and its way into an OCI layout.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::oci::{
    self, Descriptor, Digest, INDEX, MARK, MAX_JSON_BYTES, MAX_LAYERS, Platform, Reference, RootFs,
};
use serde::Deserialize;
use serde_json::json;
use transfer::Cancel;

use crate::blobs::Blobs;
use crate::client::Client;
use crate::download::Download;
use crate::manifest::Chosen;

/// What a pull reads of an image's configuration.
#[derive(Deserialize)]
struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

/// Blobs fetched at the same time.
const PARALLEL: usize = 4;

/// How far a pull has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes that are there.
    pub bytes_done: u64,
    /// Bytes of all blobs.
    pub bytes_total: u64,
    /// Layers of the image.
    pub layers: usize,
}

/// An image in a registry, of which nothing but documents has been fetched.
pub struct Found {
    reference: Reference,
    chosen: Chosen,
    architecture: String,
    max_bytes: u64,
}

impl Found {
    pub(crate) fn new(
        reference: Reference,
        chosen: Chosen,
        architecture: &str,
        max_bytes: u64,
    ) -> Self {
        Self {
            reference,
            chosen,
            architecture: architecture.to_owned(),
            max_bytes,
        }
    }

    /// What was asked for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The digest of the image's manifest: not of an index that led there.
    pub fn digest(&self) -> &Digest {
        &self.chosen.digest
    }

    /// Digests of the layers' blobs.
    pub fn layer_blobs(&self) -> impl Iterator<Item = Digest> {
        let layers = self.chosen.manifest.layers.iter();
        layers.filter_map(|descriptor| descriptor.digest.parse().ok())
    }

    /// The image's manifest, as it came.
    pub fn manifest(&self) -> &[u8] {
        &self.chosen.bytes
    }

    /// Where it was found.
    pub(crate) fn client(&self) -> &Client {
        &self.chosen.client
    }

    /// Digests of configuration and layers.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        let config = self.chosen.manifest.config.digest.parse().ok();
        config.into_iter().chain(self.layer_blobs())
    }

    /// Makes an OCI layout of the image in the empty folder `layout`, its blobs by way of `blobs`; without the layers of which `has`
    /// says, by the digest of their uncompressed tars, that they are here.
    ///
    /// # Errors
    /// If a blob cannot be fetched, is not what was promised, or the image is too large or for another host.
    pub fn fetch(
        &self,
        blobs: &Blobs,
        layout: &Path,
        has: &Has<'_>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<()> {
        let fetch = || {
            let mut layers = self.layers()?;
            self.begin(layout)?;
            let mut pull = Pull {
                found: self,
                blobs,
                layout,
                has,
                diff_ids: Vec::new(),
                cancel: Cancel::default(),
                done: Mutex::new(0),
                total: 0,
                progress,
            };
            pull.diff_ids = pull.configuration()?;
            layers.retain(|layer| !pull.is_here(layer));
            pull.total = layers.iter().map(|layer| layer.size).sum();
            pull.all(&layers)
        };
        fetch().with_context(|| format!("pull {}", self.reference))
    }

    /// The layers, each once, if they can be taken at all.
    fn layers(&self) -> Result<Vec<&Descriptor>> {
        let layers = &self.chosen.manifest.layers;
        ensure!(
            layers.len() <= MAX_LAYERS,
            "it has {} layers, more than {MAX_LAYERS}",
            layers.len()
        );
        let mut seen = BTreeSet::new();
        let once = layers.iter().filter(|layer| seen.insert(&layer.digest));
        let once: Vec<_> = once.collect();
        let mut total: u64 = 0;
        for layer in &once {
            if layer.media_type.ends_with("+encrypted") {
                bail!("layer {} is encrypted", layer.digest);
            }
            total = total.saturating_add(layer.size);
        }
        ensure!(
            total <= self.max_bytes,
            "its layers have {total} bytes, more than the {} that an image may take (--max-image-size)",
            self.max_bytes
        );
        Ok(once)
    }

    /// Everything but the blobs.
    fn begin(&self, layout: &Path) -> Result<()> {
        let manifest = &self.chosen.descriptor;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": manifest.media_type,
                "digest": manifest.digest,
                "size": manifest.size,
                "annotations": {"org.opencontainers.image.ref.name": self.reference.to_string()},
            }],
        });
        let path = layout.join(self.chosen.digest.blob_path());
        let folders = ["blobs/sha256", "blobs/sha512"].map(|folder| layout.join(folder));
        folders
            .iter()
            .try_for_each(fs::create_dir_all)
            .and_then(|()| fs::write(path, &self.chosen.bytes))
            .and_then(|()| fs::write(layout.join(INDEX), index.to_string()))
            .and_then(|()| fs::write(layout.join(MARK), r#"{"imageLayoutVersion":"1.0.0"}"#))
            .with_context(|| format!("make an OCI layout in {}", layout.display()))
    }
}

/// Says of a layer, by the digest of its uncompressed tar, whether it need not be fetched.
pub type Has<'a> = dyn Fn(&Digest) -> bool + Sync + 'a;

/// A layer turned out to be here while its blob was waited for.
#[derive(Debug, thiserror::Error)]
#[error("the layer is here")]
struct IsHere;

/// One pull into a layout.
struct Pull<'a> {
    found: &'a Found,
    blobs: &'a Blobs,
    layout: &'a Path,
    has: &'a Has<'a>,
    /// Digests of the layers' uncompressed tars, by the configuration.
    diff_ids: Vec<String>,
    cancel: Cancel,
    done: Mutex<u64>,
    total: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl Pull<'_> {
    /// Fetches the configuration first: an image for another host is not worth its layers. Gives what it lists of these.
    fn configuration(&self) -> Result<Vec<String>> {
        let config = &self.found.chosen.manifest.config;
        ensure!(
            config.size <= MAX_JSON_BYTES,
            "its configuration has {} bytes, more than {MAX_JSON_BYTES}",
            config.size
        );
        let path = self.blob(config, &|_| {})?;
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let configuration: Configuration = oci::parse(&bytes, "the configuration")?;
        let object = self.found.reference.to_string();
        oci::check_platform(&configuration.platform, &self.found.architecture, &object)?;
        Ok(configuration.rootfs.unwrap_or_default().diff_ids)
    }

    fn all(&self, layers: &[&Descriptor]) -> Result<()> {
        let next = Mutex::new(layers.iter());
        let failed = Mutex::new(None);
        let work = || {
            while !self.cancel.is_set()
                && let Some(layer) = locked(&next).next()
            {
                match self.blob(layer, &|bytes| self.tell(bytes)) {
                    Ok(_) => {}
                    Err(error) if error.is::<IsHere>() => {
                        self.tell(i64::try_from(layer.size).unwrap_or_default());
                    }
                    Err(error) => {
                        locked(&failed).get_or_insert(error);
                        self.cancel.set();
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..PARALLEL.min(layers.len()) {
                scope.spawn(work);
            }
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    /// Whether a layer need not be fetched.
    fn is_here(&self, layer: &Descriptor) -> bool {
        let mut layers = self.found.chosen.manifest.layers.iter().zip(&self.diff_ids);
        let found = layers.find(|(other, _)| other.digest == layer.digest);
        let diff_id = found.and_then(|(_, diff_id)| diff_id.parse().ok());
        diff_id.is_some_and(|diff_id| (self.has)(&diff_id))
    }

    /// The path of a blob in the layout, by now.
    fn blob(
        &self,
        descriptor: &Descriptor,
        progress: &(dyn Fn(i64) + Sync),
    ) -> Result<std::path::PathBuf> {
        let digest: Digest = descriptor.digest.parse()?;
        let target = self.layout.join(digest.blob_path());
        let size = descriptor.size;
        let told = Mutex::new(0);
        let download = Download {
            client: &self.found.chosen.client,
            digest: &digest,
            size,
            cancel: &self.cancel,
            progress: &|bytes| {
                *locked(&told) += bytes;
                progress(bytes);
            },
        };
        self.blobs
            .link(&digest, size, &target, |file| {
                // Whoever fetched it while this waited may have made the layer of it.
                ensure!(!self.is_here(descriptor), IsHere);
                download.fill(file)
            })
            .with_context(|| format!("fetch blob {digest}"))?;
        // One that was here already comes all at once.
        let rest = i64::try_from(size).map_err(|_| anyhow!("blob {digest} is too large"))?;
        progress(rest - *locked(&told));
        Ok(target)
    }

    fn tell(&self, bytes: i64) {
        let mut done = locked(&self.done);
        *done = done.saturating_add_signed(bytes);
        (self.progress)(Progress {
            bytes_done: *done,
            bytes_total: self.total,
            layers: self.found.chosen.manifest.layers.len(),
        });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! One import: a source becomes an image in the store, whole or not at all.
//!
//! Called by `Store::import`, on the caller's thread; many at once, in threads and processes. Where the id is known
//! before the layers are read, an image that is there already costs nothing, and of two that import the same one the
//! second waits for the first.

mod commit;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::ImageManifest;

use super::image::{Image, Kind, Record};
use super::known::Key;
use super::layers::{self, settle};
use super::lease::Lease;
use super::place::{INDEX, Place, ROOTFS};
use super::workshop::Workshop;
use super::{ImportOptions, Store, discard, identity, names};
use crate::digest::{Algorithm, Digest, Hashing};
use crate::limits::room_left;
use crate::outgoing::Files;
use crate::source::content::Content;
use crate::source::{self, Layer, Layers, Meter, Source, Tarball, Wanted};
use crate::{Limits, Writer};

/// An image of more layers is one file: a pod opens, and a host's mount names, each file of an image.
pub const SHARED_LAYERS: usize = 127;

/// What an import works with.
pub struct Import<'a> {
    pub store: &'a Store,
    pub place: &'a Place,
    pub options: &'a ImportOptions,
    /// Bytes that the store may still take.
    pub room: u64,
    pub wanted: Wanted<'a>,
    pub meter: Meter<'a>,
}

/// An image that is in the store by now, and stays there while this is.
pub struct Imported {
    pub id: String,
    /// What its source calls it.
    pub names: Vec<String>,
    _lease: Lease,
}

impl Imported {
    fn new(id: String, names: Vec<String>, lease: Lease) -> Self {
        Self {
            id,
            names,
            _lease: lease,
        }
    }
}

impl Import<'_> {
    /// Imports what lies at `path`.
    ///
    /// # Errors
    /// If it is no image for this host, is damaged or too large, or the store cannot be written.
    pub fn run(&self, path: &Path) -> Result<Imported> {
        let desk = Workshop::unique(&self.place.tmp())?;
        let limit = self.spool_bytes();
        let source = source::open(path, &self.wanted, || desk.unlinked("spool"), limit)?;
        self.import(source, desk)
    }

    /// Imports what `stream` holds.
    ///
    /// # Errors
    /// As for [`run`](Self::run); if it is longer than an image may be.
    pub fn run_stream(&self, stream: impl Read) -> Result<Imported> {
        let desk = Workshop::unique(&self.place.tmp())?;
        let limit = self.spool_bytes();
        let blob = source::spooled(stream, desk.unlinked("stream")?, self.wanted.stem, limit)?;
        let source = source::open_blob(blob, &self.wanted, || desk.unlinked("spool"), limit)?;
        self.import(source, desk)
    }

    fn import(&self, source: Source, desk: Workshop) -> Result<Imported> {
        match source {
            Source::Layers(layers) => self.layered(&layers),
            Source::Tarball(tarball) => self.tarball(&tarball, desk),
            Source::Folder(path) => self.folder(&path, desk),
        }
    }

    /// Imports the image that `layers` make up.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn layered(&self, layers: &Layers) -> Result<Imported> {
        let diff_ids = layers.layers.iter().map(|layer| &layer.diff_id);
        let id = identity::of_parts(&layers.manifest, diff_ids)?;
        let names = match layers.names.as_slice() {
            [] => self.stem(),
            names => names.to_vec(),
        };
        self.once(id, names, |id, workshop| {
            let (held, file) = if layers.layers.is_empty() || layers.layers.len() > SHARED_LAYERS {
                self.build(&workshop, ROOTFS, Writer::new, |writer| {
                    let write = |layer: &Layer| layer.write(writer, &self.meter);
                    self.each_layer(layers, write).map(|_| Vec::new())
                })?
            } else {
                self.build(&workshop, INDEX, Writer::layered, |writer| {
                    // They stay in the store while what comes back is there.
                    self.each_layer(layers, |layer| {
                        layers::apply(self.place, &layer.diff_id, writer, |writer| {
                            layer.write(writer, &self.meter)
                        })
                    })
                })?
            };
            let digest = layers.digest.as_ref().map(Digest::to_string);
            let mut record = Record::now(Kind::Oci, digest, file);
            record.layers = held.iter().map(|held| held.layer.clone()).collect();
            record.history.clone_from(&layers.history);
            self.deliver(workshop, id, &layers.manifest, &record)
        })
    }

    /// The image `id`: as the store has it, or else made in a workshop that one import has at a time.
    fn once(
        &self,
        id: String,
        names: Vec<String>,
        make: impl FnOnce(&str, Workshop) -> Result<Lease>,
    ) -> Result<Imported> {
        if let Some((_, lease)) = self.sound(&id)? {
            return Ok(Imported::new(id, names, lease));
        }
        let workshop = Workshop::enter(&self.place.tmp(), &id)?;
        let lease = match self.sound(&id)? {
            Some((_, lease)) => lease,
            None => make(&id, workshop)?,
        };
        Ok(Imported::new(id, names, lease))
    }

    /// Does `work` with each layer of `image`, lowest first.
    fn each_layer<T>(
        &self,
        image: &Layers,
        mut work: impl FnMut(&Layer) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = image.layers.len();
        let one = |(layer, number): (&Layer, usize)| {
            let bytes = layer.blob.as_ref().map_or(0, Content::length);
            self.meter.begin(number, count, bytes);
            work(layer).with_context(|| format!("layer {number} of {count}"))
        };
        image.layers.iter().zip(1..).map(one).collect()
    }

    fn tarball(&self, tarball: &Tarball, workshop: Workshop) -> Result<Imported> {
        let key = self.key(tarball)?;
        if let Some(id) = key.id()?
            && let Some((image, lease)) = self.sound(&id)?
            && self.store.is_above_the_newest(&image)?
        {
            let names = self.names(tarball, &image.manifest);
            return Ok(Imported::new(id, names, lease));
        }
        let ahead = tarball.manifest(&self.wanted, &self.options.limits())?;
        let below = match &ahead {
            Some(manifest) => self.store.dependencies(manifest)?,
            None => Vec::new(),
        };
        let (merged, file) = self.build(&workshop, ROOTFS, Writer::new, |writer| {
            for image in &below {
                let applied = Files::of(image).and_then(|files| writer.apply_stored(&files));
                applied.with_context(|| format!("read {}", image.rootfs.display()))?;
            }
            let merged = tarball.write(writer, &self.wanted, &self.meter)?;
            if ahead.is_some_and(|ahead| ahead != merged.manifest) {
                bail!("the archive has changed while it was read");
            }
            let whitelist = &merged.manifest.path_whitelist;
            if !whitelist.is_empty() {
                writer.retain(whitelist)?;
            }
            Ok(merged)
        })?;
        let (id, kind) = if tarball.is_aci {
            (identity::of_aci(&merged.digest), Kind::Aci)
        } else {
            let id = identity::of_parts(&merged.manifest, [&merged.digest])?;
            (id, Kind::RootFs)
        };
        let names = self.names(tarball, &merged.manifest);
        let mut record = Record::now(kind, None, file);
        if tarball.is_aci {
            record.below = ids(&below);
            record.source_bytes = vec![tarball.blob.length(), merged.tar_bytes];
        }
        let lease = self.deliver(workshop, &id, &merged.manifest, &record)?;
        key.remember(&self.key(tarball)?, self.place, &id)?;
        Ok(Imported::new(id, names, lease))
    }

    fn key(&self, tarball: &Tarball) -> Result<Key> {
        let metadata = tarball.blob.metadata()?;
        Ok(Key::new(self.place, &metadata, self.wanted.architecture))
    }

    fn names(&self, tarball: &Tarball, manifest: &ImageManifest) -> Vec<String> {
        if tarball.is_aci {
            vec![name_of(manifest)]
        } else {
            self.stem()
        }
    }

    fn folder(&self, path: &Path, workshop: Workshop) -> Result<Imported> {
        self.meter.begin(1, 1, 0);
        let (_, digest) = self.build(&workshop, ROOTFS, Writer::new, |writer| {
            writer
                .apply_folder(path)
                .with_context(|| format!("read folder {}", path.display()))
        })?;
        let file = File::open(workshop.join(ROOTFS)).context("open the image file")?;
        let content = Hashing::new(file, Algorithm::Sha512)
            .finish()
            .context("read the image file")?;
        let name = self.wanted.name.unwrap_or(self.wanted.stem);
        let manifest = source::convert::bare(name, self.wanted.architecture);
        let id = identity::of_parts(&manifest, [&content])?;
        let record = Record::now(Kind::RootFs, None, digest);
        let lease = self.deliver(workshop, &id, &manifest, &record)?;
        Ok(Imported::new(id, self.stem(), lease))
    }

    /// Makes the image's file `name` in `workshop` with a writer that `begin` makes, its files put there by `fill`; gives its digest,
    /// too.
    fn build<T>(
        &self,
        workshop: &Workshop,
        name: &str,
        begin: impl FnOnce(File, File, Limits) -> Result<Writer>,
        fill: impl FnOnce(&mut Writer) -> Result<T>,
    ) -> Result<(T, String)> {
        let file = workshop.create(name, 0o600)?;
        let output = file.try_clone().context("duplicate a descriptor")?;
        let limits = Limits {
            new_bytes: self.room,
            ..self.options.limits()
        };
        let mut writer = begin(output, workshop.unlinked("scratch")?, limits)?;
        let filled = fill(&mut writer)?;
        self.meter.writing();
        let finished = writer.finish().context("write the image file")?;
        finished.losses.tell();
        let digest = settle(&file, &workshop.join(name))?;
        Ok((filled, digest))
    }

    fn deliver(
        &self,
        workshop: Workshop,
        id: &str,
        manifest: &ImageManifest,
        record: &Record,
    ) -> Result<Lease> {
        record.write(manifest, &workshop)?;
        match self.sound(id)? {
            // An ACI keeps its id whatever lies below it; what it was made with before is out of date.
            Some((image, _)) if image.below != record.below => {
                discard(self.place, &self.place.image(id))?;
            }
            Some((_, lease)) => return Ok(lease),
            None => {}
        }
        let folder = self.place.image(id);
        if let Some(lease) = workshop.deliver(&folder)? {
            return Ok(lease);
        }
        // Another import was faster: the image is there, and that is all that was wanted.
        let lease = Lease::share(&folder)?;
        lease.with_context(|| format!("image {id} was removed while it was imported"))
    }

    /// The image `id` if the store has it; a damaged one is thrown away, as it is about to be made anew.
    fn sound(&self, id: &str) -> Result<Option<(Image, Lease)>> {
        let Some(lease) = Lease::share(&self.place.image(id))? else {
            return Ok(None);
        };
        match Image::load(self.place, id, Vec::new()) {
            Ok(image) => Ok(image.map(|image| (image, lease))),
            Err(error) => {
                tracing::warn!("{error:#}");
                discard(self.place, &self.place.image(id))?;
                Ok(None)
            }
        }
    }

    /// The most that a file for the time of the import may have.
    fn spool_bytes(&self) -> u64 {
        self.options.max_image_bytes.min(self.room)
    }

    /// What that is, for people.
    fn spool_limit(&self) -> String {
        match self.room < self.options.max_image_bytes {
            true => room_left(self.room),
            false => format!(
                "an image may have {} bytes (--max-image-size)",
                self.options.max_image_bytes
            ),
        }
    }

    fn stem(&self) -> Vec<String> {
        vec![self.wanted.stem.to_owned()]
    }
}

fn ids(images: &[Image]) -> Vec<String> {
    images.iter().map(|image| image.id.clone()).collect()
}

/// An ACI's own name, with its version as docker writes a tag.
fn name_of(manifest: &ImageManifest) -> String {
    let version = manifest.labels.iter().find(|label| label.name == "version");
    version.map_or(manifest.name.clone(), |version| {
        let tagged = format!("{}:{}", manifest.name, version.value);
        if names::is_name(&tagged) {
            tagged
        } else {
            manifest.name.clone()
        }
    })
}

//! One import: a source becomes an image in the store, whole or not at all.
//!
//! Called by `Store::import`, on the caller's thread; many at once, in threads and processes. Where the id is known
//! before the layers are read, an image that is there already costs nothing, and of two that import the same one the
//! second waits for the first.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use contract::ImageManifest;

use super::image::{Image, Kind, Record};
use super::known::Key;
use super::place::{Place, ROOTFS};
use super::verify::digest_of;
use super::workshop::Workshop;
use super::{ImportOptions, MissingDependencies, Store, discard, identity, names};
use crate::Writer;
use crate::digest::{Algorithm, Digest, Hashing};
use crate::source::{self, Layers, Meter, Source, Tarball, Wanted};

/// What an import works with.
pub struct Import<'a> {
    pub store: &'a Store,
    pub place: &'a Place,
    pub options: &'a ImportOptions,
    pub wanted: Wanted<'a>,
    pub meter: Meter<'a>,
}

/// An image that is in the store by now.
pub struct Imported {
    pub id: String,
    /// What its source calls it.
    pub names: Vec<String>,
}

impl Import<'_> {
    /// Imports what lies at `path`.
    ///
    /// # Errors
    /// If it is no image for this host, is damaged or too large, or the store cannot be written.
    pub fn run(&self, path: &Path) -> Result<Imported> {
        let desk = Workshop::unique(&self.place.tmp())?;
        let limit = self.options.max_image_bytes;
        let source = source::open(path, &self.wanted, || desk.unlinked("spool"), limit)?;
        self.import(source, desk)
    }

    /// Imports what `stream` holds.
    ///
    /// # Errors
    /// As for [`run`](Self::run); if it is longer than an image may be.
    pub fn run_stream(&self, stream: impl Read) -> Result<Imported> {
        let desk = Workshop::unique(&self.place.tmp())?;
        let limit = self.options.max_image_bytes;
        let blob = source::spooled(stream, desk.unlinked("stream")?, self.wanted.stem, limit)?;
        let source = source::open_blob(blob, &self.wanted, || desk.unlinked("spool"), limit)?;
        self.import(source, desk)
    }

    fn import(&self, source: Source, desk: Workshop) -> Result<Imported> {
        match source {
            Source::Layers(layers) => self.layers(&layers),
            Source::Tarball(tarball) => self.tarball(&tarball, desk),
            Source::Folder(path) => self.folder(&path, desk),
        }
    }

    fn layers(&self, layers: &Layers) -> Result<Imported> {
        let diff_ids = layers.layers.iter().map(|layer| &layer.diff_id);
        let id = identity::of_parts(&layers.manifest, diff_ids)?;
        let names = match layers.names.as_slice() {
            [] => self.stem(),
            names => names.to_vec(),
        };
        let imported = Imported { id, names };
        if self.sound(&imported.id)?.is_some() {
            return Ok(imported);
        }
        let workshop = Workshop::enter(&self.place.tmp(), &imported.id)?;
        if self.sound(&imported.id)?.is_some() {
            return Ok(imported);
        }
        let (_, rootfs) = self.build(&workshop, |writer| layers.write(writer, &self.meter))?;
        let digest = layers.digest.as_ref().map(Digest::to_string);
        self.deliver(
            workshop,
            &imported.id,
            &layers.manifest,
            &Record::now(Kind::Oci, digest, &rootfs),
        )?;
        Ok(imported)
    }

    fn tarball(&self, tarball: &Tarball, workshop: Workshop) -> Result<Imported> {
        let key = self.key(tarball)?;
        if let Some(id) = key.id()?
            && let Some(image) = self.sound(&id)?
            && self.is_current(&image)?
        {
            let names = self.names(tarball, &image.manifest);
            return Ok(Imported { id, names });
        }
        let ahead = tarball.manifest(&self.wanted, &self.options.limits())?;
        let below = match &ahead {
            Some(manifest) => self.store.dependencies(manifest)?,
            None => Vec::new(),
        };
        let (merged, rootfs) = self.build(&workshop, |writer| {
            for image in &below {
                writer.apply_stored(&image.rootfs)?;
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
        let mut record = Record::now(kind, None, &rootfs);
        if tarball.is_aci {
            record.below = ids(&below);
            record.source_bytes = vec![tarball.blob.length(), merged.tar_bytes];
        }
        self.deliver(workshop, &id, &merged.manifest, &record)?;
        key.remember(&self.key(tarball)?, self.place, &id)?;
        Ok(Imported { id, names })
    }

    /// Whether an ACI lies above the images that its dependencies mean now; one whose dependencies have left the store
    /// stays as it is.
    fn is_current(&self, image: &Image) -> Result<bool> {
        match self.store.dependencies(&image.manifest) {
            Ok(below) => Ok(ids(&below) == image.below),
            Err(error) if error.is::<MissingDependencies>() => Ok(true),
            Err(error) => Err(error),
        }
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
        let (_, rootfs) = self.build(&workshop, |writer| {
            writer
                .apply_folder(path)
                .with_context(|| format!("read folder {}", path.display()))
        })?;
        let file = std::fs::File::open(workshop.join(ROOTFS)).context("open the image file")?;
        let digest = Hashing::new(file, Algorithm::Sha512)
            .finish()
            .context("read the image file")?;
        let name = self.wanted.name.unwrap_or(self.wanted.stem);
        let manifest = source::convert::bare(name, self.wanted.architecture);
        let id = identity::of_parts(&manifest, [&digest])?;
        self.deliver(
            workshop,
            &id,
            &manifest,
            &Record::now(Kind::RootFs, None, &rootfs),
        )?;
        Ok(Imported {
            id,
            names: self.stem(),
        })
    }

    /// Makes the image file in `workshop`, its files put there by `fill`; gives its digest, too.
    fn build<T>(
        &self,
        workshop: &Workshop,
        fill: impl FnOnce(&mut Writer) -> Result<T>,
    ) -> Result<(T, Digest)> {
        let file = workshop.create(ROOTFS, 0o600)?;
        let output = file.try_clone().context("duplicate a descriptor")?;
        let mut writer = Writer::new(output, workshop.unlinked("scratch")?, self.options.limits())?;
        let filled = fill(&mut writer)?;
        self.meter.writing();
        let finished = writer.finish().context("write the image file")?;
        finished.losses.tell();
        // The disk and the processor need not wait for one another.
        let (durable, digest) = thread::scope(|scope| {
            let digest = scope.spawn(|| digest_of(&workshop.join(ROOTFS)));
            let durable = file
                .set_permissions(Permissions::from_mode(0o444))
                .and_then(|()| file.sync_all());
            (durable, digest.join())
        });
        durable.context("make the image file durable")?;
        let digest = digest.map_err(|_| anyhow!("the reader of the image file panicked"))??;
        Ok((filled, digest))
    }

    fn deliver(
        &self,
        workshop: Workshop,
        id: &str,
        manifest: &ImageManifest,
        record: &Record,
    ) -> Result<()> {
        record.write(manifest, &workshop)?;
        match self.sound(id)? {
            // An ACI keeps its id whatever lies below it; what it was made with before is out of date.
            Some(image) if image.below != record.below => discard(self.place, id)?,
            Some(_) => return Ok(()),
            None => {}
        }
        // Where another import was faster, the image is there, and that is all that was wanted.
        workshop.deliver(&self.place.image(id)).map(drop)
    }

    /// The image `id` if the store has it; a damaged one is thrown away, as it is about to be made anew.
    fn sound(&self, id: &str) -> Result<Option<Image>> {
        Image::load(self.place, id, Vec::new()).or_else(|error| {
            tracing::warn!("{error:#}");
            discard(self.place, id)?;
            Ok(None)
        })
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

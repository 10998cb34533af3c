//! The files of an app become an image: a layer of what differs from the image that the app ran from, above that one's layers, or, if
//! it has none of its own, its files.

use std::fs::File;
use std::io::{self, BufWriter, Error, Read, Seek, Write};

use anyhow::{Context, Result, bail};

use super::{Import, Imported, layers};
use crate::Writer;
use crate::commit::{Commit, difference, manifest};
use crate::digest::{Algorithm, Digest};
use crate::outgoing::{Files, Sum};
use crate::source::Progress;
use crate::source::document::History;
use crate::store::image::{Image, Kind, Record};
use crate::store::layers::{Held, LayerRef};
use crate::store::place::{INDEX, ROOTFS};
use crate::store::workshop::Workshop;
use crate::store::{ImportOptions, Store, identity};

/// What the step is called in an image's history.
const CREATED_BY: &str = "fairing commit";

impl Store {
    /// Makes an image of the files that `tar` holds, by the name that `options` give it.
    ///
    /// # Errors
    /// If the tar is none of such files, they are larger than an image may be, or the store cannot be written; then the store is
    /// as before.
    pub fn commit(
        &self,
        commit: &Commit<'_>,
        tar: &mut dyn Read,
        options: &ImportOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<Image> {
        self.import_with("", options, progress, |import| import.commit(commit, tar))
            .context("make an image of the app's files")
    }
}

/// The layer, on the disk for as long as it is read.
struct Spooled {
    file: File,
    diff_id: Digest,
}

impl Import<'_> {
    fn commit(&self, commit: &Commit<'_>, tar: &mut dyn Read) -> Result<Imported> {
        let manifest = manifest(commit, self.wanted.name)?;
        let base = (!commit.squash).then_some(commit.base);
        let files = base.map(Files::of).transpose()?;
        let desk = Workshop::unique(&self.place.tmp())?;
        let layer = self.spool(commit, files.as_ref(), tar, desk.unlinked("layer")?)?;
        let step = step(commit);
        let of_step = Digest::of(Algorithm::Sha256, &serde_json::to_vec(&step)?);
        let below = base.map(digest_of_id).transpose()?;
        let content = below.iter().chain([&layer.diff_id, &of_step]);
        let id = identity::of_parts(&manifest, content)?;
        self.once(id, Vec::new(), |id, workshop| {
            let (held, file) = match files.filter(|_| commit.base.layers.is_empty()) {
                Some(files) => self.build(&workshop, ROOTFS, Writer::new, |writer| {
                    writer.apply_stored(&files)?;
                    writer.apply_layer(&layer.file)?;
                    Ok(Vec::new())
                })?,
                None => self.build(&workshop, INDEX, Writer::layered, |writer| {
                    let below = base.map_or(&[][..], |base| &base.layers);
                    self.pile(below, &layer, writer)
                })?,
            };
            let mut record = Record::now(Kind::Oci, None, file);
            record.layers = held.iter().map(|held| held.layer.clone()).collect();
            record.history = base.map(history).unwrap_or_default();
            record.history.push(step);
            self.deliver(workshop, id, &manifest, &record)
        })
    }

    /// Writes the layer into `file`.
    fn spool(
        &self,
        commit: &Commit<'_>,
        base: Option<&Files>,
        tar: &mut dyn Read,
        file: File,
    ) -> Result<Spooled> {
        self.meter.begin(1, 1, 0);
        let bounded = Bounded {
            file,
            left: self.spool_bytes(),
            limit: self.spool_limit(),
        };
        let mut sum = Sum::new(BufWriter::new(bounded));
        let tar = self.meter.watch(tar);
        difference(base, tar, commit.root, &mut sum)?.tell();
        let (file, diff_id, _) = sum.finish();
        let bounded = file.into_inner().map_err(io::IntoInnerError::into_error);
        let mut file = bounded.context("write the layer")?.file;
        file.rewind().context("read the layer")?;
        Ok(Spooled { file, diff_id })
    }

    /// Puts the layers `below` into `writer`, as they are kept, and the new one; they stay in the store while what comes back is there.
    fn pile(&self, below: &[LayerRef], new: &Spooled, writer: &mut Writer) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        for layer in below {
            let diff_id = layer.diff_id.parse()?;
            held.push(layers::apply(self.place, &diff_id, writer, |_| {
                bail!("layer {diff_id} of the image that the app ran from is damaged; import that again")
            })?);
        }
        held.push(layers::apply(self.place, &new.diff_id, writer, |writer| {
            writer.apply_layer(&new.file)
        })?);
        Ok(held)
    }
}

/// A file that takes so many bytes more.
struct Bounded {
    file: File,
    left: u64,
    /// What bounds it.
    limit: String,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| {
            Error::other(format!(
                "what the app has changed is larger than the limit: {}",
                self.limit
            ))
        })?;
        let written = self.file.write_all(bytes);
        written.map_err(|error| {
            Error::new(
                error.kind(),
                format!("write the layer in the store: {error}"),
            )
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn digest_of_id(image: &Image) -> Result<Digest> {
    image.id.replacen('-', ":", 1).parse()
}

fn step(commit: &Commit<'_>) -> History {
    History {
        created: commit.created.to_owned(),
        created_by: CREATED_BY.to_owned(),
        author: commit.author.unwrap_or_default().to_owned(),
        comment: commit.message.unwrap_or_default().to_owned(),
        empty_layer: false,
    }
}

/// The steps in which `image` was made; where they are not known, one for each of its layers.
fn history(image: &Image) -> Vec<History> {
    let unknown = || History {
        comment: "how this was made is not known".to_owned(),
        ..History::default()
    };
    match image.history.is_empty() {
        true => vec![unknown(); image.layers.len().max(1)],
        false => image.history.clone(),
    }
}

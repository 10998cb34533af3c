//! The image store: a folder with images under their ids, and names for them.
//!
//! Used by every `fairing` command, by many processes and threads at once, with no daemon: whatever is made appears by
//! one rename, and what a killed process left in `tmp` the next one sweeps. `place` says where everything lies.

mod built;
mod dependencies;
mod desk;
mod export;
pub(crate) mod identity;
mod image;
mod import;
mod known;
mod layers;
mod lease;
mod names;
mod place;
mod removal;
mod space;
mod tags;
mod verify;
mod vouched;
mod workshop;

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::ImageManifest;

use crate::Limits;
use crate::source::{self, Form, Meter, Progress, Wanted};
use import::{Import, Imported};
use place::{FORMAT_VERSION, Place};
use removal::discard;
use workshop::{FOLDER_MODE, replace, sweep};

pub use dependencies::MissingDependencies;
pub use desk::Desk;
pub use export::Archive;
pub use image::{Image, Kind};
pub use import::SHARED_LAYERS;
pub use layers::LayerRef;
pub use lease::Lease;
pub use space::LayerSpace;

/// Uncompressed bytes that may be read for one byte that an image may have: zeros and hidden files cost no space.
const INPUT_RATIO: u64 = 4;

/// Fewest hexadecimal digits of an id that are taken without `sha512-` before them.
const MIN_BARE_DIGITS: usize = 6;

/// What an image is called that comes as a stream and has no name.
const STREAM: &str = "stdin";

/// A store that is open.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
    /// Bytes that it may take.
    max_bytes: Option<u64>,
}

/// How to import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The most that the files of an image may have, in bytes, with those of its layers.
    pub max_image_bytes: u64,
    /// Name to give instead of the source's own; of a source with several images it chooses the one so called.
    pub name: Option<String>,
    /// Architecture wanted, as OCI spells it.
    pub architecture: String,
    /// Forms of sources that are not taken, each with the reason.
    pub barred: Vec<(Form, String)>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            max_image_bytes: 64 << 30,
            name: None,
            architecture: architecture.to_owned(),
            barred: Vec::new(),
        }
    }
}

impl ImportOptions {
    fn limits(&self) -> Limits {
        Limits {
            image_bytes: self.max_image_bytes,
            input_bytes: self.max_image_bytes.saturating_mul(INPUT_RATIO),
            ..Limits::default()
        }
    }
}

impl Store {
    /// Opens the store in `dir`, made if it is missing, and sweeps what killed imports left.
    ///
    /// # Errors
    /// If it cannot be made or read, or has another format version.
    pub fn open(dir: &Path) -> Result<Self> {
        let place = Place::new(dir);
        for folder in [
            place.images(),
            place.layers(),
            place.names(),
            place.sources(),
            place.tmp(),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(&folder)
                .with_context(|| format!("create {}", folder.display()))?;
        }
        let store = Self {
            place,
            max_bytes: None,
        };
        store.check_version()?;
        sweep(&store.place.tmp())?;
        Ok(store)
    }

    /// The same store, that refuses images which would make it take more than that many bytes.
    #[must_use]
    pub fn limited_to(self, max_bytes: Option<u64>) -> Self {
        Self { max_bytes, ..self }
    }

    fn check_version(&self) -> Result<()> {
        let path = self.place.version();
        match fs::read_to_string(&path) {
            Ok(version) if version.trim_end() == FORMAT_VERSION => Ok(()),
            Ok(version) => bail!(
                "store {} has format version {:?}, this fairing reads version {FORMAT_VERSION}",
                self.place.dir().display(),
                version.trim_end()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let version = format!("{FORMAT_VERSION}\n");
                replace(&self.place.tmp(), &path, version.as_bytes())
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Imports what lies at `source`; an image that is there already only gets its names.
    ///
    /// # Errors
    /// If it is no image for this host, is damaged, altered or too large, or the store cannot be written; then the
    /// store is as before.
    pub fn import(
        &self,
        source: &Path,
        options: &ImportOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<Image> {
        let stem = source::names::stem(source);
        self.import_with(&stem, options, progress, |import| import.run(source))
            .with_context(|| format!("import {}", source.display()))
    }

    /// Imports the image that `stream` holds, from a file without a name in the store.
    ///
    /// # Errors
    /// As for [`import`](Self::import); if there is more than an image may have.
    pub fn import_stream(
        &self,
        stream: impl Read,
        options: &ImportOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<Image> {
        self.import_with(STREAM, options, progress, |import| {
            import.run_stream(stream)
        })
        .with_context(|| format!("import {STREAM}"))
    }

    fn import_with(
        &self,
        stem: &str,
        options: &ImportOptions,
        progress: &dyn Fn(Progress),
        run: impl FnOnce(&Import) -> Result<Imported>,
    ) -> Result<Image> {
        options.name.as_deref().map_or(Ok(()), names::check)?;
        sweep(&self.place.tmp())?;
        let turn = self.turn()?;
        let room = self.room()?;
        let imported = run(&Import {
            store: self,
            place: &self.place,
            options,
            room: room.unwrap_or(u64::MAX),
            wanted: Wanted {
                barred: &options.barred,
                architecture: &options.architecture,
                name: options.name.as_deref(),
                stem,
            },
            meter: Meter::new(progress),
        });
        if imported.is_err() {
            // What was made of it so far; the import's own error counts for more.
            let _ = self.trim_layers();
        }
        drop(turn);
        let imported = imported?;
        // A source may say that it is the image of a digest, but only if it is.
        let digest = image::digest_of(&self.place, &imported.id)?;
        let is_its = |name: &String| {
            let promised = name.split_once('@').map(|(_, digest)| digest);
            promised.is_none() || promised == digest.as_deref()
        };
        let own = imported.names.into_iter().filter(is_its).collect();
        let given = options.name.clone().map(|name| vec![name]);
        for name in given.unwrap_or(own) {
            if names::is_name(&name) {
                names::bind(&self.place, &name, &imported.id)?;
            } else {
                tracing::warn!(
                    "the image's own name {name:?} cannot be kept; give one with --name"
                );
            }
        }
        self.get(&imported.id)?
            .with_context(|| format!("image {} was removed while it was imported", imported.id))
    }

    /// Where the store is limited, one import waits for the other: each may take what it has found free.
    fn turn(&self) -> Result<Option<File>> {
        let lock = || -> io::Result<File> {
            let file = File::open(self.place.version())?;
            file.lock()?;
            Ok(file)
        };
        let turn = self.max_bytes.map(|_| lock().context("lock the store"));
        turn.transpose()
    }

    /// The manifest of the ACI at `path`; `None` if something else lies there.
    ///
    /// # Errors
    /// If it cannot be read, or is for another host.
    pub fn aci_manifest(
        &self,
        path: &Path,
        options: &ImportOptions,
    ) -> Result<Option<ImageManifest>> {
        let wanted = Wanted {
            barred: &[],
            architecture: &options.architecture,
            name: None,
            stem: "",
        };
        source::aci_manifest(path, &wanted, &options.limits())
    }

    /// The image that `reference` means: a name, an id, a unique beginning of an id, or the digest of an OCI manifest.
    ///
    /// # Errors
    /// If it means several, or the store cannot be read.
    pub fn find(&self, reference: &str) -> Result<Option<Image>> {
        if identity::is_id_prefix(reference) {
            return self.find_prefix(reference);
        }
        if reference.starts_with("sha256:") {
            let mut images = self.list()?.into_iter();
            let image = images.find(|image| image.digest.as_deref() == Some(reference));
            return image.map_or(Ok(None), |image| self.get(&image.id));
        }
        if let Some(id) = names::resolve(&self.place, reference)? {
            return self.get(&id);
        }
        if reference.len() >= MIN_BARE_DIGITS {
            let prefix = format!("{}{reference}", identity::PREFIX);
            if identity::is_id_prefix(&prefix) {
                return self.find_prefix(&prefix);
            }
        }
        Ok(None)
    }

    fn find_prefix(&self, prefix: &str) -> Result<Option<Image>> {
        let mut ids = self.ids()?;
        ids.retain(|id| id.starts_with(prefix));
        match ids.as_slice() {
            [] => Ok(None),
            [id] => self.get(id),
            [one, other, ..] => bail!("{prefix} is the beginning of both {one} and {other}"),
        }
    }

    /// All images, sorted by id; a damaged one is left out, with a warning.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>> {
        let names = names::all(&self.place)?;
        let mut images = Vec::new();
        for id in self.ids()? {
            match Image::load(&self.place, &id, of_id(&names, &id)) {
                Ok(image) => images.extend(image),
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
        Ok(images)
    }

    /// The image `id`, which stays while this is there, and has been used now.
    fn get(&self, id: &str) -> Result<Option<Image>> {
        let Some(lease) = Lease::share(&self.place.image(id))? else {
            return Ok(None);
        };
        let image = Image::load(&self.place, id, of_id(&names::all(&self.place)?, id))?;
        if image.is_some() {
            image::touch(&self.place, id);
        }
        Ok(image.map(|image| Image {
            lease: Some(lease),
            ..image
        }))
    }

    fn ids(&self) -> Result<Vec<String>> {
        let dir = self.place.images();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry.with_context(|| format!("read {}", dir.display()))?;
            ids.extend(entry.file_name().into_string());
        }
        ids.retain(|id| identity::is_id(id));
        ids.sort();
        Ok(ids)
    }
}

fn of_id(names: &[(String, String)], id: &str) -> Vec<String> {
    names
        .iter()
        .filter(|(_, known)| known == id)
        .map(|(name, _)| name.clone())
        .collect()
}

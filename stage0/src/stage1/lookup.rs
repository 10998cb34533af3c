//! Finds the stage 1 image to use: what the command line names, else the configuration, else the one shipped with fairing.
//!
//! Paths are taken as they are. What is named otherwise is an image, of the store if that has it; else it is fetched and verified as
//! the images of apps are.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use discovery::Name;
use image::{Image, Store};

use super::built_in::built_in;
use crate::cli::Stage1Flags;
use crate::images::{self, Importing};
use crate::registries::{self, Pulling};
use crate::settings::Settings;

/// Name of the stage 1 that is shipped with fairing.
const BUILT_IN: &str = "kvm";

/// What a URL may begin with that is no path's. Not `docker://`: a registry's image has no signature that a key is trusted for, and no
/// entrypoints of a stage 1.
const FETCHED: [&str; 2] = ["https://", "http://"];

/// A stage 1 image that was found.
#[derive(Debug)]
pub struct Choice {
    /// Where it is.
    pub place: Place,
    /// Who chose it, for `doctor`.
    pub chosen_by: String,
}

/// Where a stage 1 is.
#[derive(Debug)]
pub enum Place {
    /// A directory with `manifest` and `rootfs/`, or an `.aci` file.
    Path(PathBuf),
    /// An image of the store.
    Image(Box<Image>),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(out),
            Self::Image(image) => write!(out, "image {} of the store", image.id),
        }
    }
}

/// Looks for stage 1 images.
pub struct Finder<'a> {
    /// Where things are.
    pub settings: &'a Settings,
    /// How those are fetched that the store lacks.
    pub pulling: Pulling<'a>,
    /// No progress on a terminal.
    pub quiet: bool,
}

impl Finder<'_> {
    /// Finds the stage 1 that the flags name; without one, the default of this host.
    ///
    /// # Errors
    /// If there is none; the error lists where was looked.
    pub fn find(&self, flags: &Stage1Flags) -> Result<Choice> {
        let executable = std::env::current_exe().unwrap_or_default();
        if let Some(path) = &flags.stage1_path {
            return existing(path, "--stage1-path");
        }
        if let Some(url) = &flags.stage1_url {
            return self.url(url, "--stage1-url");
        }
        if let Some(name) = &flags.stage1_from_dir {
            let path = self.in_images_folder(name, &executable)?;
            return existing(&path, "--stage1-from-dir");
        }
        if let Some(name) = &flags.stage1_name {
            return self.image(name, "--stage1-name");
        }
        if let Some(id) = &flags.stage1_hash {
            let found = stored(&images::store(self.settings)?, id)?;
            let found = found.map(|image| of_image(image, "--stage1-hash"));
            return found.with_context(|| is_no_image(id, "--stage1-hash"));
        }
        match (&flags.stage1, &self.settings.stage1) {
            (Some(name), _) if name != BUILT_IN => self.named(name, "--stage1"),
            (None, Some((name, file))) if name != BUILT_IN => {
                self.named(name, &format!("configuration {}", file.display()))
            }
            _ => built_in(&executable).and_then(|(path, by)| existing(&path, by)),
        }
    }

    /// A path, a URL, or else an image's name or id.
    fn named(&self, name: &str, chosen_by: &str) -> Result<Choice> {
        let path = Path::new(name);
        if path.exists() {
            return existing(path, chosen_by);
        }
        if name.contains("://") {
            return self.url(name, chosen_by);
        }
        self.image(name, chosen_by).with_context(|| {
            format!(
                "stage 1 {name} (from {chosen_by}) does not exist; give the name kvm, a directory with manifest and rootfs, an \
                 .aci file, or an image"
            )
        })
    }

    fn url(&self, url: &str, chosen_by: &str) -> Result<Choice> {
        if let Some(path) = url.strip_prefix("file://").filter(|p| p.starts_with('/')) {
            return existing(Path::new(path), chosen_by);
        }
        ensure!(
            FETCHED.iter().any(|scheme| url.starts_with(scheme)),
            "stage 1 {url} (from {chosen_by}): file:///PATH, https:// and http:// are supported"
        );
        let store = images::store(self.settings)?;
        let image = images::resolve(&store, OsStr::new(url), self.importing(), self.pulling);
        let image = image.with_context(|| format!("find stage 1 (from {chosen_by})"))?;
        Ok(of_image(image, chosen_by))
    }

    /// An image of the store, or one whose name says where others have it.
    fn image(&self, name: &str, chosen_by: &str) -> Result<Choice> {
        let store = images::store(self.settings)?;
        if let Some(image) = stored(&store, name)? {
            return Ok(of_image(image, chosen_by));
        }
        let parsed = name.parse::<Name>().ok().filter(Name::has_host);
        let Some(parsed) = parsed else {
            bail!(is_no_image(name, chosen_by));
        };
        let options = registries::options(self.importing())?;
        let fetching = self.pulling.of_acis(&store, self.importing());
        let image = fetching.name(&parsed, &options);
        let image = image.with_context(|| is_no_image(name, chosen_by))?;
        Ok(of_image(image, chosen_by))
    }

    fn importing(&self) -> Importing<'static> {
        Importing {
            max_image_size: None,
            signature: None,
            signature_policy: None,
            quiet: self.quiet,
        }
    }

    /// The path of a stage 1 in the configured folder, else in `lib/fairing` beside an installed fairing.
    fn in_images_folder(&self, name: &str, executable: &Path) -> Result<PathBuf> {
        if name.contains('/') {
            bail!("--stage1-from-dir takes a file name, not the path {name:?}");
        }
        let installed = || {
            let prefix = executable.parent().and_then(Path::parent);
            prefix.unwrap_or(Path::new("/usr")).join("lib/fairing")
        };
        let folder = self.settings.stage1_images.clone();
        Ok(folder.unwrap_or_else(installed).join(name))
    }
}

fn existing(path: &Path, chosen_by: &str) -> Result<Choice> {
    ensure!(
        path.exists(),
        "stage 1 {} (from {chosen_by}) does not exist; a directory with manifest and rootfs, or an .aci file would do",
        path.display()
    );
    Ok(Choice {
        place: Place::Path(path.to_owned()),
        chosen_by: chosen_by.to_owned(),
    })
}

fn of_image(image: Image, chosen_by: &str) -> Choice {
    Choice {
        place: Place::Image(Box::new(image)),
        chosen_by: chosen_by.to_owned(),
    }
}

fn is_no_image(name: &str, chosen_by: &str) -> String {
    format!(
        "stage 1 {name} (from {chosen_by}) is no image of the store: `fairing image import` or `fairing image pull` makes it one"
    )
}

/// An image by its id, or its name with or without the version: of several versions the one that was imported last.
fn stored(store: &Store, name: &str) -> Result<Option<Image>> {
    if let Some(image) = store.find(name)? {
        return Ok(Some(image));
    }
    let known = store.list()?.into_iter();
    let named = known.filter(|image| image.manifest.name == name);
    let newest = named.max_by_key(|image| image.imported);
    newest.map_or(Ok(None), |image| store.find(&image.id))
}

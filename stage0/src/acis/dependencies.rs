//! Images that an App Container image lies above, fetched where the store lacks them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use contract::ImageManifest;
use contract::image::Dependency;
use discovery::Name;
use image::{Image, ImportOptions, MissingDependencies};

use super::Fetching;
use crate::cli::PullPolicy;
use crate::progress::Progress;

/// Images above one another.
const MAX_DEPTH: usize = 16;
/// Images fetched for one.
const MAX_COUNT: usize = 128;

/// What is being fetched for what: the images on the way from the one that the user named, and those that were asked for already.
#[derive(Clone, Default)]
pub struct Above {
    names: Vec<String>,
    asked: Rc<RefCell<HashSet<String>>>,
}

impl Above {
    /// With one more; `None` if that was asked for already.
    fn and(&self, dependency: &Dependency) -> Result<Option<Self>> {
        let name = dependency.to_string();
        if self.names.contains(&name) {
            bail!("{} depends on itself: {}", name, self.names.join(" on "));
        }
        ensure!(
            self.names.len() < MAX_DEPTH,
            "more than {MAX_DEPTH} images depend on one another: {}",
            self.names.join(" on ")
        );
        let mut asked = self.asked.borrow_mut();
        if !asked.insert(name.clone()) {
            return Ok(None);
        }
        ensure!(
            asked.len() <= MAX_COUNT,
            "it depends on more than {MAX_COUNT} images"
        );
        let mut above = self.clone();
        above.names.push(name);
        Ok(Some(above))
    }
}

impl Fetching<'_> {
    /// Imports what lies at `path`, after what it depends on.
    pub(super) fn import(
        &self,
        path: &Path,
        options: &ImportOptions,
        above: &Above,
    ) -> Result<Image> {
        if self.policy == PullPolicy::Update
            && let Some(manifest) = self.store.aci_manifest(path, options)?
        {
            self.fetch_all(&manifest.dependencies, &manifest.name, options, above)?;
        }
        let error = match self.import_once(path, options) {
            Err(error) if self.policy != PullPolicy::Never => error,
            imported => return imported,
        };
        let Some(missing) = error.downcast_ref::<MissingDependencies>() else {
            return Err(error);
        };
        self.fetch_all(&missing.missing, &missing.image, options, above)?;
        self.import_once(path, options)
    }

    /// Whether `image` lies above what its dependencies mean by now, which others are asked.
    pub(super) fn is_above_the_newest(
        &self,
        image: &Image,
        options: &ImportOptions,
        above: &Above,
    ) -> Result<bool> {
        let ImageManifest {
            name, dependencies, ..
        } = &image.manifest;
        self.fetch_all(dependencies, name, options, above)?;
        self.store.is_above_the_newest(image)
    }

    fn fetch_all(
        &self,
        dependencies: &[Dependency],
        image: &str,
        options: &ImportOptions,
        above: &Above,
    ) -> Result<()> {
        dependencies.iter().try_for_each(|dependency| {
            let fetched = self.dependency(dependency, options, above);
            fetched.with_context(|| format!("fetch {dependency}, on which {image} depends"))
        })
    }

    fn import_once(&self, path: &Path, options: &ImportOptions) -> Result<Image> {
        let progress = Progress::new(path, self.quiet);
        let image = self
            .store
            .import(path, options, &|step| progress.tell(step));
        progress.end();
        image
    }

    fn dependency(
        &self,
        dependency: &Dependency,
        options: &ImportOptions,
        above: &Above,
    ) -> Result<()> {
        let Some(above) = above.and(dependency)? else {
            return Ok(());
        };
        if let Some(id) = &dependency.image_id
            && self.store.find(id)?.is_some()
        {
            return Ok(());
        }
        let limit = dependency.size.unwrap_or(options.max_image_bytes);
        let options = ImportOptions {
            max_image_bytes: options.max_image_bytes.min(limit),
            name: None,
            ..options.clone()
        };
        // The store has been asked; and its signature is its own.
        let fetching = Fetching {
            signature: None,
            ..*self
        };
        let image = fetching.named(&Name::try_from(dependency)?, &options, &above)?;
        match &dependency.image_id {
            Some(id) if *id != image.id => bail!("what is found is another image, {}", image.id),
            _ => Ok(()),
        }
    }
}

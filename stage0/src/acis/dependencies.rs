//! Images that an App Container image lies above, fetched where the store lacks them.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
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

/// What is being fetched for what: the images on the way from the one that the user named.
#[derive(Clone, Default)]
pub struct Above {
    names: Vec<String>,
    count: Rc<Cell<usize>>,
}

impl Above {
    /// With one more.
    fn and(&self, dependency: &Dependency) -> Result<Self> {
        let name = dependency.to_string();
        if self.names.contains(&name) {
            bail!("{} depends on itself: {}", name, self.names.join(" on "));
        }
        ensure!(
            self.names.len() < MAX_DEPTH,
            "more than {MAX_DEPTH} images depend on one another: {}",
            self.names.join(" on ")
        );
        self.count.set(self.count.get() + 1);
        ensure!(
            self.count.get() <= MAX_COUNT,
            "it depends on more than {MAX_COUNT} images"
        );
        let mut above = self.clone();
        above.names.push(name);
        Ok(above)
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
        let error = match self.import_once(path, options) {
            Err(error) if self.policy != PullPolicy::Never => error,
            imported => return imported,
        };
        let Some(missing) = error.downcast_ref::<MissingDependencies>() else {
            return Err(error);
        };
        for dependency in &missing.missing {
            self.dependency(dependency, options, above)
                .with_context(|| {
                    format!("fetch {dependency}, on which {} depends", missing.image)
                })?;
        }
        self.import_once(path, options)
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
        let above = above.and(dependency)?;
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

//! Images out of the storage that podman and buildah share.

use anyhow::{Context, Result};

use super::{Image, ImportOptions, Store};
use crate::source::storage::{Storage, find};
use crate::source::{Progress, Wanted};

impl Store {
    /// Imports the image that podman or buildah keeps as `reference` in one of `storages`; `None` if none has it.
    ///
    /// # Errors
    /// As for [`import`](Self::import); if its files are not this user's to read, or it is removed meanwhile.
    pub fn import_built(
        &self,
        storages: &[Storage],
        reference: &str,
        options: &ImportOptions,
        progress: &dyn Fn(Progress),
    ) -> Result<Option<Image>> {
        let wanted = Wanted {
            // What podman keeps it has judged itself.
            barred: &[],
            architecture: &options.architecture,
            name: options.name.as_deref(),
            stem: reference,
        };
        let Some(layers) = find(storages, reference, &wanted)? else {
            return Ok(None);
        };
        self.import_with(reference, options, progress, |import| {
            import.layered(&layers)
        })
        .with_context(|| format!("import {reference} as podman keeps it"))
        .map(Some)
    }
}

//! Images leave the store for good.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use super::lease::Lease;
use super::place::Place;
use super::workshop::{self, Workshop};
use super::{Image, Store, names};

impl Store {
    /// Removes `image` and its names, unless `reason` gives one against it or a command uses the image; says whether it is gone.
    /// Nobody comes to use it while `reason` looks. Pods that have a link to its file keep it.
    ///
    /// # Errors
    /// If it cannot be removed; it is gone wholly or not at all. And those of `reason`.
    pub fn remove_unless(
        &self,
        mut image: Image,
        reason: impl FnOnce(&Image) -> Result<bool>,
    ) -> Result<bool> {
        // This command's own is not in the way.
        image.lease = None;
        let Some(_claim) = Lease::claim(&self.place.image(&image.id))? else {
            return Ok(false);
        };
        if reason(&image)? {
            return Ok(false);
        }
        names::forget(&self.place.names(), &image.id)?;
        names::forget(&self.place.sources(), &image.id)?;
        discard(&self.place, &self.place.image(&image.id))?;
        // The image is gone by now; what this leaves, the next removal finds.
        if let Err(error) = self.trim_layers() {
            tracing::warn!("layers that no image has stay: {error:#}");
        }
        Ok(true)
    }
}

/// Takes the folder of an image or a layer out of the store by one rename, and removes it then.
pub fn discard(place: &Place, folder: &Path) -> Result<()> {
    let workshop = Workshop::unique(&place.tmp())?;
    match fs::rename(folder, workshop.join("removed")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => folder.parent().map_or(Ok(()), workshop::sync_folder),
    }
}

//! Images leave the store for good.

use std::fs;
use std::io::ErrorKind;

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
        discard(&self.place, &image.id)?;
        self.trim_layers()?;
        Ok(true)
    }
}

/// Takes the image `id` out of the store by one rename, and removes it then.
pub fn discard(place: &Place, id: &str) -> Result<()> {
    let workshop = Workshop::unique(&place.tmp())?;
    match fs::rename(place.image(id), workshop.join("removed")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove image {id}"))
        }
        _ => workshop::sync_folder(&place.images()),
    }
}

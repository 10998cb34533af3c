//! Names given to images and taken from them by hand.

use anyhow::{Context, Result};

use super::{Image, Store, names};

impl Store {
    /// Makes each of `names` stand for `image` from now on.
    ///
    /// # Errors
    /// If one is no name, before any is given; if one cannot be written.
    pub fn tag(&self, image: &Image, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| names::check(name))?;
        names
            .iter()
            .try_for_each(|name| names::bind(&self.place, name, &image.id))
    }

    /// Takes each of `names` from `image`.
    ///
    /// # Errors
    /// If it has not all of them, before any is taken; if one cannot be removed.
    pub fn untag(&self, image: &Image, names: &[String]) -> Result<()> {
        let kept = |name: &String| {
            let kept = names::kept_as(&self.place, name)?;
            let kept = kept.filter(|(_, id)| *id == image.id).map(|(name, _)| name);
            kept.with_context(|| format!("image {} is not called {name:?}", image.id))
        };
        let kept = names.iter().map(kept).collect::<Result<Vec<_>>>()?;
        kept.iter()
            .try_for_each(|name| names::unbind(&self.place, name))
    }

    /// Whether `reference` means an image by a name.
    ///
    /// # Errors
    /// If names cannot be read.
    pub fn is_name(&self, reference: &str) -> Result<bool> {
        Ok(names::kept_as(&self.place, reference)?.is_some())
    }
}

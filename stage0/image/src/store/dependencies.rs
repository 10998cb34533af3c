//! Which images of the store an ACI's dependencies mean (appc specification 0.8.11, "Dependency Matching").
//!
//! Called by the import of an ACI, and by who looks an image up by name and labels.

#[cfg(test)]
mod tests;

use std::fmt;

use anyhow::{Result, bail};
use contract::ImageManifest;
use contract::image::{Dependency, Label};

use super::{Image, Store, identity};

/// Dependencies taken of one image.
const MAX_DEPENDENCIES: usize = 128;

/// An image cannot be made because the store lacks others; whoever can fetch those may then try again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct MissingDependencies {
    /// The name of the image that has these dependencies.
    pub image: String,
    /// Those that are missing, in the image's order.
    pub missing: Vec<Dependency>,
}

impl fmt::Display for MissingDependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing: Vec<_> = self.missing.iter().map(Dependency::to_string).collect();
        write!(
            f,
            "{} depends on images that the store does not have: {}; import them first",
            self.image,
            missing.join(", ")
        )
    }
}

impl Store {
    /// The images that `manifest` depends on, lowest first.
    pub(super) fn dependencies(&self, manifest: &ImageManifest) -> Result<Vec<Image>> {
        let dependencies = &manifest.dependencies;
        if dependencies.len() > MAX_DEPENDENCIES {
            bail!(
                "{} depends on {} images, more than {MAX_DEPENDENCIES}",
                manifest.name,
                dependencies.len()
            );
        }
        if dependencies.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.list()?;
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for dependency in dependencies {
            match choose(&known, dependency)? {
                Some(image) => found.push(image.clone()),
                None => missing.push(dependency.clone()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let image = manifest.name.clone();
        Err(MissingDependencies { image, missing }.into())
    }

    /// Whether `image` lies above the images that its dependencies mean now; one whose dependencies have left the store stays as it is.
    ///
    /// # Errors
    /// If the store cannot be read, or a dependency is malformed.
    pub fn is_above_the_newest(&self, image: &Image) -> Result<bool> {
        match self.dependencies(&image.manifest) {
            Ok(below) => Ok(below.iter().map(|image| &image.id).eq(&image.below)),
            Err(error) if error.is::<MissingDependencies>() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The newest image whose manifest has this name and all of these labels.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn find_labelled(&self, name: &str, labels: &[Label]) -> Result<Option<Image>> {
        Ok(newest(&self.list()?, name, labels).cloned())
    }
}

/// The image of `known` that is meant; an id counts for more than name and labels.
fn choose<'a>(known: &'a [Image], dependency: &Dependency) -> Result<Option<&'a Image>> {
    let Dependency {
        image_name, labels, ..
    } = dependency;
    let found = match &dependency.image_id {
        Some(id) if !identity::is_id(id) => {
            bail!("dependency {dependency}: its imageID is not sha512- and 128 hexadecimal digits")
        }
        Some(id) => known.iter().find(|image| image.id == *id),
        None => newest(known, image_name, labels),
    };
    if let (Some(image), Some(size)) = (found, dependency.size)
        && !image.source_bytes.is_empty()
        && !image.source_bytes.contains(&size)
    {
        let bytes: Vec<_> = image.source_bytes.iter().map(u64::to_string).collect();
        bail!(
            "dependency {dependency} has the wrong size: {} bytes, promised were {size}",
            bytes.join(" or ")
        );
    }
    Ok(found)
}

fn newest<'a>(known: &'a [Image], name: &str, labels: &[Label]) -> Option<&'a Image> {
    let fits = |image: &&Image| {
        image.manifest.name == name
            && labels
                .iter()
                .all(|label| image.manifest.labels.contains(label))
    };
    known
        .iter()
        .filter(fits)
        .max_by_key(|image| (image.imported, &image.id))
}

//! Finds the stage 1 image to use: what the command line names, else the configuration, else the one shipped with fairing.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use image::Image;

use crate::cli::Stage1Flags;
use crate::images;
use crate::settings::Settings;

/// Name of the stage 1 that is shipped with fairing.
const BUILT_IN: &str = "kvm";

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

/// Finds the stage 1 that the flags name; without one, the default of this host.
///
/// # Errors
/// If there is none; the error lists where was looked.
pub fn find(flags: &Stage1Flags, settings: &Settings) -> Result<Choice> {
    let executable = std::env::current_exe().unwrap_or_default();
    if let Some(path) = &flags.stage1_path {
        return existing(path, "--stage1-path");
    }
    if let Some(url) = &flags.stage1_url {
        return existing(path_of(url)?, "--stage1-url");
    }
    if let Some(name) = &flags.stage1_from_dir {
        return existing(
            &in_images_folder(name, settings, &executable)?,
            "--stage1-from-dir",
        );
    }
    for (name, flag) in [
        (&flags.stage1_name, "--stage1-name"),
        (&flags.stage1_hash, "--stage1-hash"),
    ] {
        if let Some(name) = name {
            return stored(name, flag, settings)?.with_context(|| {
                format!("stage 1 {name} (from {flag}) is no image of the store: `fairing image import` makes it one")
            });
        }
    }
    match (&flags.stage1, &settings.stage1) {
        (Some(name), _) if name != BUILT_IN => named(name, "--stage1", settings),
        (None, Some((name, file))) if name != BUILT_IN => {
            named(name, &format!("configuration {}", file.display()), settings)
        }
        _ => built_in(&executable),
    }
}

/// A path, or else an image of the store.
fn named(name: &str, chosen_by: &str, settings: &Settings) -> Result<Choice> {
    let path = Path::new(name);
    if path.exists() {
        return existing(path, chosen_by);
    }
    stored(name, chosen_by, settings)?.with_context(|| {
        format!(
            "stage 1 {name} (from {chosen_by}) does not exist; give the name kvm, a directory with manifest and rootfs, an .aci \
             file, or an image of the store"
        )
    })
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

/// An image by its id, or its name with or without the version: of several versions the one that was imported last.
fn stored(name: &str, chosen_by: &str, settings: &Settings) -> Result<Option<Choice>> {
    let store = images::store(settings)?;
    let image = match store.find(name)? {
        Some(image) => Some(image),
        None => store
            .list()?
            .into_iter()
            .filter(|image| image.manifest.name == name)
            .max_by_key(|image| image.imported),
    };
    Ok(image.map(|image| Choice {
        place: Place::Image(Box::new(image)),
        chosen_by: chosen_by.to_owned(),
    }))
}

fn path_of(url: &str) -> Result<&Path> {
    let path = url
        .strip_prefix("file://")
        .filter(|path| path.starts_with('/'));
    path.map(Path::new).with_context(|| {
        format!("--stage1-url={url}: only file:///PATH is supported; what lies elsewhere is downloaded beforehand")
    })
}

/// The path of a stage 1 in the configured folder, else in `lib/fairing` beside an installed fairing.
fn in_images_folder(name: &str, settings: &Settings, executable: &Path) -> Result<PathBuf> {
    if name.contains('/') {
        bail!("--stage1-from-dir takes a file name, not the path {name:?}");
    }
    let installed = || {
        let prefix = executable.parent().and_then(Path::parent);
        prefix.unwrap_or(Path::new("/usr")).join("lib/fairing")
    };
    let folder = settings.stage1_images.clone().unwrap_or_else(installed);
    Ok(folder.join(name))
}

fn built_in(executable: &Path) -> Result<Choice> {
    let candidates = built_in_candidates(executable);
    for (path, chosen_by) in &candidates {
        if path.exists() {
            return existing(path, chosen_by);
        }
    }
    let looked: Vec<_> = candidates
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    bail!(
        "no stage 1 image found; looked for {}; in a checkout scripts/demo builds it, elsewhere --stage1=PATH names one",
        looked.join(", ")
    )
}

/// Beside an installed fairing, then in the `target` folder of the checkout that it was built in.
fn built_in_candidates(executable: &Path) -> Vec<(PathBuf, &'static str)> {
    let installed = executable
        .parent()
        .and_then(Path::parent)
        .map(|prefix| (prefix.join("lib/fairing"), "installed with fairing"));
    let built = executable
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "target"))
        .map(|target| (target.to_owned(), "built in this checkout"));
    installed
        .into_iter()
        .chain(built)
        .flat_map(|(folder, chosen_by)| {
            ["stage1-kvm", "stage1-kvm.aci"].map(|name| (folder.join(name), chosen_by))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn built_in_is_searched_beside_the_executable_then_in_target() {
        let paths: Vec<_> =
            built_in_candidates(Path::new("/src/fairing/target/x86_64/debug/fairing"))
                .into_iter()
                .map(|(path, _)| path)
                .collect();
        assert_eq!(
            paths,
            [
                "/src/fairing/target/x86_64/lib/fairing/stage1-kvm",
                "/src/fairing/target/x86_64/lib/fairing/stage1-kvm.aci",
                "/src/fairing/target/stage1-kvm",
                "/src/fairing/target/stage1-kvm.aci",
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn built_in_installed_wins_over_the_checkouts() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let target = dir.path().join("target");
        fs::create_dir_all(target.join("lib/fairing/stage1-kvm"))?;
        fs::create_dir_all(target.join("stage1-kvm"))?;
        let chosen =
            || built_in(&target.join("debug/fairing")).map(|choice| choice.place.to_string());
        let shown = |path: &str| target.join(path).display().to_string();
        assert_eq!(chosen()?, shown("lib/fairing/stage1-kvm"));
        fs::remove_dir_all(target.join("lib"))?;
        assert_eq!(chosen()?, shown("stage1-kvm"));
        Ok(())
    }

    #[test]
    fn built_in_missing_tells_where_was_looked() {
        let error = built_in(Path::new("/nowhere/bin/fairing")).expect_err("there is none");
        let text = error.to_string();
        assert!(text.contains("/nowhere/lib/fairing/stage1-kvm"), "{text}");
        assert!(text.contains("scripts/demo"), "{text}");
    }
}

//! Finds the stage 1 image to use: what the command line names, else the configuration, else the one shipped with fairing.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::settings::Settings;

/// Name of the stage 1 that is shipped with fairing.
const BUILT_IN: &str = "kvm";

/// A stage 1 image that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// A directory with `manifest` and `rootfs/`, or an `.aci` file.
    pub path: PathBuf,
    /// Who chose it, for `doctor`.
    pub chosen_by: String,
}

/// Finds the stage 1 that `requested` (`kvm` or a path) names; without one, the default of this host.
///
/// # Errors
/// If there is none; the error lists where was looked.
pub fn find(requested: Option<&str>, settings: &Settings) -> Result<Choice> {
    let executable = std::env::current_exe().unwrap_or_default();
    match (requested, &settings.stage1) {
        (Some(BUILT_IN), _) => built_in(&executable),
        (Some(path), _) => existing(path, "--stage1".to_owned()),
        (None, Some((name, file))) if name != BUILT_IN => {
            existing(name, format!("configuration {}", file.display()))
        }
        (None, _) => built_in(&executable),
    }
}

/// The path of an image in the folder `lib/fairing` beside an installed fairing, for `--stage1-from-dir`.
///
/// # Errors
/// If the name is a path.
pub fn in_images_folder(name: &str) -> Result<String> {
    if name.contains('/') {
        bail!("--stage1-from-dir takes a file name, not the path {name:?}");
    }
    let executable = std::env::current_exe()?;
    let prefix = executable.parent().and_then(Path::parent);
    let path = prefix
        .unwrap_or(Path::new("/usr"))
        .join("lib/fairing")
        .join(name);
    Ok(path.display().to_string())
}

fn existing(path: &str, chosen_by: String) -> Result<Choice> {
    let path = PathBuf::from(path);
    if !path.exists() {
        bail!(
            "stage 1 {} (from {chosen_by}) does not exist; give the name kvm, a directory with manifest and rootfs, or an .aci file",
            path.display()
        );
    }
    Ok(Choice { path, chosen_by })
}

fn built_in(executable: &Path) -> Result<Choice> {
    let candidates = built_in_candidates(executable);
    for (path, chosen_by) in &candidates {
        if path.exists() {
            return Ok(Choice {
                path: path.clone(),
                chosen_by: (*chosen_by).to_owned(),
            });
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
        let choice = built_in(&target.join("debug/fairing"))?;
        assert_eq!(choice.path, target.join("lib/fairing/stage1-kvm"));
        fs::remove_dir_all(target.join("lib"))?;
        let choice = built_in(&target.join("debug/fairing"))?;
        assert_eq!(choice.path, target.join("stage1-kvm"));
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

//! The stage 1 that is shipped with fairing, and where it lies.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The path of the stage 1 that belongs to `executable`, and who has put it there, for `doctor`.
///
/// # Errors
/// If there is none; the error lists where was looked.
pub fn built_in(executable: &Path) -> Result<(PathBuf, &'static str)> {
    let mut candidates = candidates(executable);
    if let Some(found) = candidates.iter().position(|(path, _)| path.exists()) {
        return Ok(candidates.swap_remove(found));
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
fn candidates(executable: &Path) -> Vec<(PathBuf, &'static str)> {
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
        let paths: Vec<_> = candidates(Path::new("/src/fairing/target/x86_64/debug/fairing"))
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
        let chosen = || built_in(&target.join("debug/fairing")).map(|(path, _)| path);
        assert_eq!(chosen()?, target.join("lib/fairing/stage1-kvm"));
        fs::remove_dir_all(target.join("lib"))?;
        assert_eq!(chosen()?, target.join("stage1-kvm"));
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

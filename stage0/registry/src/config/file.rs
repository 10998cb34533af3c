//! One registries.conf, and where such files lie.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use contract::bounded;
use serde::Deserialize;

use super::places::Registry;

/// Largest file read, in bytes: lists of short names are long.
const MAX_BYTES: u64 = 4 << 20;

/// The host's file; a folder of the same name with `.d` holds more.
const SYSTEM: &str = "/etc/containers/registries.conf";

/// A file's content; what podman knows besides does not matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct File {
    /// The search list.
    pub unqualified_search_registries: Option<Vec<String>>,
    /// Where repositories really are.
    pub registry: Vec<Registry>,
    /// Short names.
    pub aliases: BTreeMap<String, String>,
}

impl File {
    /// The file at `path`, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8(bounded::read(file, MAX_BYTES)?)?;
        Ok(Some(toml::from_str(&text)?))
    }
}

/// The files to read, the first overridden by the later ones: the one that a variable names, or else the user's, or
/// else the host's; then those of the folders beside these.
///
/// # Errors
/// If a folder is there and cannot be read.
pub fn paths(variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<PathBuf>> {
    let user = user_file(&variable);
    let chosen = ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"]
        .iter()
        .find_map(|name| variable(name))
        .map(PathBuf::from);
    let main = match (chosen, &user) {
        (Some(path), _) => path,
        (None, Some(path)) if path.exists() => path.clone(),
        (None, _) => PathBuf::from(SYSTEM),
    };
    let mut paths = vec![main];
    for folder in [Some(PathBuf::from(SYSTEM)), user].into_iter().flatten() {
        paths.extend(drop_ins(&folder.with_extension("conf.d"), "conf")?);
    }
    Ok(paths)
}

fn user_file(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("containers/registries.conf"))
}

/// The files of a folder with this `extension`, by name; none, if there is no such folder.
pub(super) fn drop_ins(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_folder_comes_last() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/containers/registries.conf.d");
        fs::create_dir_all(&folder).unwrap();
        for name in ["2.conf", "1.conf", "3.txt"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let own = home.path().join("own.conf");
        let paths = paths(|name| match name {
            "HOME" => Some(home.path().into()),
            "CONTAINERS_REGISTRIES_CONF" => Some(own.clone().into()),
            _ => None,
        });
        let paths = paths.unwrap();
        assert_eq!(paths[0], own);
        assert!(paths.ends_with(&[folder.join("1.conf"), folder.join("2.conf")]));
    }

    #[test]
    fn file_that_is_missing_is_none_and_malformed_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.conf");
        assert!(File::read(&path).unwrap().is_none());
        fs::write(&path, "[[registry").unwrap();
        assert!(File::read(&path).is_err());
    }
}

//! Images that podman and buildah have built here, found where this host's containers-storage.conf(5) says they are.
//!
//! Called by `images` for `containers-storage:NAME`, and for `localhost/NAME`, as podman calls what it builds, where the
//! store has no such image. Other names without a registry are not looked for there: what another program keeps must
//! not change what `alpine` means.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::{Image, ImportOptions, Storage, Store};
use serde::Deserialize;

use crate::progress::Progress;

/// What says that an image lies there, as in skopeo and buildah.
pub const SCHEME: &str = "containers-storage:";

/// How podman names what it has built.
pub const LOCAL: &str = "localhost/";

/// The host's configuration, and the distribution's.
const CONFIGURATIONS: [&str; 2] = [
    "/etc/containers/storage.conf",
    "/usr/share/containers/storage.conf",
];

/// Where root's images are if no configuration says so.
const DEFAULT_ROOT: &str = "/var/lib/containers/storage";

/// What a storage.conf says that matters here.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    storage: Section,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    graphroot: Option<String>,
    rootless_storage_path: Option<String>,
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    additionalimagestores: Vec<String>,
}

/// The image that `word` names, with or without the scheme: `[[DRIVER@]ROOT[+RUNROOT][:OPTIONS]]NAME`, in which the
/// part in brackets says where; `None` if nobody has built one so called.
///
/// # Errors
/// If the configuration is malformed, or the image cannot be read or imported.
pub fn find(
    store: &Store,
    word: &str,
    options: &ImportOptions,
    quiet: bool,
) -> Result<Option<Image>> {
    let place = word.strip_prefix(SCHEME).unwrap_or(word);
    let (storages, name) = match place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((place, name)) => (at(place)?, name),
        None => (configured()?, place),
    };
    let progress = Progress::of_name(name, quiet);
    let image = store.import_built(&storages, name, options, &|step| progress.tell(step));
    progress.end();
    image
}

/// As [`find`], of an image that must be there.
///
/// # Errors
/// As for [`find`]; if there is none.
pub fn image(store: &Store, word: &str, options: &ImportOptions, quiet: bool) -> Result<Image> {
    find(store, word, options, quiet)?.with_context(|| {
        format!("{word:?}: no such image is kept there; `podman images` shows those that are")
    })
}

/// What lies at a place as skopeo spells it.
fn at(place: &str) -> Result<Vec<Storage>> {
    let (driver, root) = match place.split_once('@') {
        Some((driver, root)) => (Some(driver), root),
        None => (None, place),
    };
    let root = root.split(['+', ':']).next().unwrap_or(root);
    if !root.starts_with('/') {
        bail!("{place:?} is no place of images: [DRIVER@]/ROOT");
    }
    Storage::in_folder(Path::new(root), driver)
}

/// What lies where the configuration says.
fn configured() -> Result<Vec<Storage>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let driver = variable("STORAGE_DRIVER").and_then(|driver| driver.into_string().ok());
    let is_root = nix::unistd::geteuid().is_root();
    let mut storages = Vec::new();
    for root in roots(is_root, variable)? {
        storages.extend(Storage::in_folder(&root, driver.as_deref())?);
    }
    Ok(storages)
}

/// The folders to look in, one's own first.
fn roots(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<PathBuf>> {
    let folder = |name: &str, below_home: &str| {
        let named = variable(name).map(PathBuf::from);
        named.or_else(|| Some(Path::new(&variable("HOME")?).join(below_home)))
    };
    let host = CONFIGURATIONS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    let host = host
        .map(|path| read(&path))
        .transpose()?
        .unwrap_or_default();
    let own = match variable("CONTAINERS_STORAGE_CONF").map(PathBuf::from) {
        Some(path) => Some(path),
        None if is_root => None,
        None => folder("XDG_CONFIG_HOME", ".config")
            .map(|folder| folder.join("containers/storage.conf"))
            .filter(|path| path.exists()),
    };
    let own = own.map(|path| read(&path)).transpose()?;
    let expand = |path: String| expand(&path, &variable);
    let root =
        match own.as_ref().and_then(|own| own.graphroot.clone()) {
            Some(root) => Some(expand(root)),
            None if is_root => Some(
                host.graphroot
                    .clone()
                    .unwrap_or_else(|| DEFAULT_ROOT.to_owned())
                    .into(),
            ),
            None => host.rootless_storage_path.clone().map(expand).or_else(|| {
                Some(folder("XDG_DATA_HOME", ".local/share")?.join("containers/storage"))
            }),
        };
    let others = own.unwrap_or(host).options.additionalimagestores;
    Ok(root
        .into_iter()
        .chain(others.into_iter().map(PathBuf::from))
        .collect())
}

fn read(path: &Path) -> Result<Section> {
    let reading = || format!("read {}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => Ok(toml::from_str::<File>(&text).with_context(reading)?.storage),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Section::default()),
        Err(error) => Err(error).with_context(reading),
    }
}

/// A path with the variables that containers/storage knows in it.
fn expand(path: &str, variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let value = |name| {
        variable(name)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let path = path
        .replace("$HOME", &value("HOME"))
        .replace("$USER", &value("USER"));
    path.replace("$UID", &nix::unistd::getuid().to_string())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_folders_are_those_of_his_configuration_or_below_his_home() {
        let home = tempfile::tempdir().unwrap();
        let variable = |name: &str| (name == "HOME").then(|| home.path().into());
        let below = |name: &str| home.path().join(name);
        let found = || roots(false, variable).unwrap();
        assert_eq!(found()[0], below(".local/share/containers/storage"));
        fs::create_dir_all(below(".config/containers")).unwrap();
        let text = "[storage]\ndriver = \"overlay\"\ngraphroot = \"$HOME/images\"\n[storage.options]\nadditionalimagestores = [\"/more\"]\n";
        fs::write(below(".config/containers/storage.conf"), text).unwrap();
        assert_eq!(found(), [below("images"), "/more".into()]);
    }

    #[test]
    fn place_that_is_no_folder_or_of_another_driver_is_refused() {
        for place in ["", "vfs@", "relative", "btrfs@/"] {
            assert!(at(place).is_err(), "{place:?}");
        }
        assert_eq!(at("overlay@/nowhere+/run:x=y").unwrap(), []);
    }
}

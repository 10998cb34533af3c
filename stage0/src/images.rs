//! From the word that names an image on the command line to the image in the store.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::stdin;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use contract::PodManifest;
use contract::pod::{PodApp, PodImage};
use discovery::Name;
use image::{Image, ImportOptions, Store};

use crate::built;
use crate::cli::PullPolicy;
use crate::pods::Pods;
use crate::progress::Progress;
use crate::registries::{self, Pulling};
use crate::settings::Settings;

/// Opens the store of the data directory.
///
/// # Errors
/// If it cannot be made or read.
pub fn store(settings: &Settings) -> Result<Store> {
    Ok(Store::open(&settings.dir.join("store"))?.limited_to(settings.max_store_bytes))
}

/// How an import is limited and told of.
#[derive(Clone, Copy, Debug)]
pub struct Importing<'a> {
    /// `--max-image-size`.
    pub max_image_size: Option<&'a str>,
    /// `--signature`, of an App Container image.
    pub signature: Option<&'a Path>,
    /// `--signature-policy`.
    pub signature_policy: Option<&'a Path>,
    /// No progress on a terminal.
    pub quiet: bool,
}

/// The image that `word` names: a path is imported, a URL fetched, anything else looked up in the store, among what podman
/// has built here, pulled from a registry, or found by App Container Image Discovery.
///
/// # Errors
/// If it is none of these, or the import fails.
pub fn resolve(
    store: &Store,
    word: &OsStr,
    importing: Importing,
    pulling: Pulling,
) -> Result<Image> {
    let url = word.to_str().and_then(|word| word.strip_prefix("file://"));
    let path = url.map_or(Path::new(word), Path::new);
    let fetching = pulling.of_acis(store, importing);
    let mut options = registries::options(importing)?;
    if url.is_some() || path.exists() {
        options.barred = pulling.admission(importing)?.barred(Some(path))?;
        return fetching.path(path, &options);
    }
    let Some(word) = word.to_str() else {
        bail!("{} does not exist", path.display());
    };
    if let Some(image) = fetching.url(word, &options) {
        return image;
    }
    if word.starts_with(built::SCHEME) {
        return built::image(store, word, &options, importing.quiet);
    }
    if let Some(image) = built_here(store, word, &options, fetching.policy, importing.quiet)? {
        return Ok(image);
    }
    let name = word.parse::<Name>().ok();
    match name.filter(|name| name.has_host() && !word.starts_with("docker.io/")) {
        // Labels are what no registry knows.
        Some(name) if word.contains(',') => fetching.name(&name, &options),
        Some(name) => registries::resolve(store, word, importing, pulling).or_else(|error| {
            let found = fetching.name(&name, &options);
            found.map_err(|other| anyhow!("{error:#}; as an App Container image: {other:#}"))
        }),
        None => registries::resolve(store, word, importing, pulling),
    }
}

/// What podman has built and called `word`, if the store lacks it, or where the policy wants the newest.
fn built_here(
    store: &Store,
    word: &str,
    options: &ImportOptions,
    policy: PullPolicy,
    quiet: bool,
) -> Result<Option<Image>> {
    if !word.starts_with(built::LOCAL) {
        return Ok(None);
    }
    let wanted = match policy {
        PullPolicy::Never => false,
        PullPolicy::Update => true,
        PullPolicy::New => store.find(word)?.is_none(),
    };
    match wanted {
        true => built::find(store, word, options, quiet),
        false => Ok(None),
    }
}

/// The images of a manifest's apps, in order, by their ids or else by their names.
///
/// # Errors
/// If the store does not have one.
pub fn of_manifest(store: &Store, manifest: &PodManifest) -> Result<Vec<Image>> {
    let find = |app: &PodApp| {
        let PodImage { id, name, .. } = &app.image;
        let mut words = std::iter::once(id).chain(name);
        let found = words.find_map(|word| store.find(word).transpose());
        found.transpose()?.with_context(|| {
            format!(
                "app {:?}: the store has no image {id:?}; `fairing image list` shows those that it has",
                app.name
            )
        })
    };
    manifest.apps.iter().map(find).collect()
}

/// The images that pods use, by id, with the UUIDs of the pods.
///
/// # Errors
/// If the pods cannot be listed.
pub fn users(pods: &Pods) -> Result<BTreeMap<String, Vec<String>>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods.all()? {
        // One without a manifest is not laid out yet, or on its way out.
        let Ok(manifest) = pod.manifest() else {
            continue;
        };
        for app in manifest.apps {
            let pods = users.entry(app.image.id).or_default();
            if !pods.iter().any(|uuid| uuid == pod.uuid()) {
                pods.push(pod.uuid().to_owned());
            }
        }
    }
    Ok(users)
}

/// Imports what lies at `path`, or, for `-`, comes on stdin, or what podman keeps, by its own name or another. What an App Container
/// image in a file depends on is fetched where the store lacks it.
///
/// # Errors
/// The store's; if the policy does not allow such an image from there, or such a dependency cannot be had.
pub fn import(
    store: &Store,
    path: &Path,
    name: Option<&str>,
    importing: Importing,
    pulling: Pulling,
) -> Result<Image> {
    let mut options = ImportOptions {
        name: name.map(str::to_owned),
        ..registries::options(importing)?
    };
    if let Some(word) = path.to_str().filter(|word| word.starts_with(built::SCHEME)) {
        return built::image(store, word, &options, importing.quiet);
    }
    let from = Some(path).filter(|path| *path != Path::new("-"));
    options.barred = pulling.admission(importing)?.barred(from)?;
    if let Some(path) = from {
        return pulling.of_acis(store, importing).path(path, &options);
    }
    let progress = Progress::new(path, importing.quiet);
    let image = store.import_stream(stdin().lock(), &options, &|step| progress.tell(step));
    progress.end();
    image
}

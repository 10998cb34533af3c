//! An OCI configuration becomes an appc image manifest, by the rules that docker2aci's users know.
//!
//! Called by the OCI and docker sources; pure. Entrypoint and Cmd stay apart in two annotations, because arguments of
//! the command line replace only the latter. `rules` compares each item with docker2aci's. OCI image-spec 1.1, "Image
//! Configuration".

pub mod annotations;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use contract::ImageManifest;
use contract::annotation::Annotation;
use contract::image::{AC_VERSION, App, ImageKind, Label, MountPoint, Port, Variable};
use contract::name::sanitize_ac_name;
use serde_json::{Map, Value};

use super::document::{Configuration, Execution};
use super::names::{ac_identifier, is_ac_identifier, split_reference};
use annotations::{PREFIX, annotations};

/// What a manifest is made from.
pub struct Described<'a> {
    /// The reference by which the source knows the image.
    pub name: Option<&'a str>,
    /// What to call it if there is none.
    pub fallback: &'a str,
    /// As OCI spells it.
    pub architecture: &'a str,
    /// Those of the OCI manifest.
    pub annotations: &'a BTreeMap<String, String>,
    /// The image's configuration.
    pub configuration: &'a Configuration,
}

/// The manifest for `described`.
///
/// # Errors
/// If the words to execute cannot be written as JSON.
pub fn convert(described: &Described<'_>) -> Result<ImageManifest> {
    let (repository, tag) = split_reference(described.name.unwrap_or(described.fallback));
    let mut manifest = manifest(repository, described.architecture);
    if let Some(tag) = tag {
        manifest.labels.push(label("version", tag));
    }
    let mut app = app(&described.configuration.config);
    // Names that appc has no room for among an image's annotations, it has among those of users.
    let (mut own, other): (BTreeMap<_, _>, BTreeMap<_, _>) = described
        .annotations
        .clone()
        .into_iter()
        .filter(|(name, _)| !name.starts_with(PREFIX))
        .partition(|(name, _)| is_ac_identifier(name));
    app.user_annotations = map(&other);
    own.extend(annotations(repository, tag, described.configuration)?);
    manifest.annotations = own
        .into_iter()
        .map(|(name, value)| Annotation { name, value })
        .collect();
    manifest.app = Some(app);
    Ok(manifest)
}

/// A manifest without an app; `architecture` as OCI spells it.
pub fn manifest(name: &str, architecture: &str) -> ImageManifest {
    ImageManifest {
        ac_version: AC_VERSION.to_owned(),
        ac_kind: ImageKind::ImageManifest,
        name: ac_identifier(name).unwrap_or_else(|| "image".to_owned()),
        labels: vec![
            label("os", "linux"),
            label("arch", appc_architecture(architecture)),
        ],
        app: None,
        dependencies: Vec::new(),
        path_whitelist: Vec::new(),
        annotations: Vec::new(),
    }
}

/// The manifest of a bare root file system: a shell of root.
pub fn bare(name: &str, architecture: &str) -> ImageManifest {
    let mut manifest = manifest(name, architecture);
    manifest.app = Some(App {
        exec: vec!["/bin/sh".to_owned()],
        user: "0".to_owned(),
        group: "0".to_owned(),
        ..App::default()
    });
    manifest
}

/// OCI's name of an architecture in appc's spelling.
pub fn appc_architecture(architecture: &str) -> &str {
    match architecture {
        "arm64" => "aarch64",
        "386" => "i386",
        other => other,
    }
}

/// appc's name of an architecture in OCI's spelling.
pub fn oci_architecture(architecture: &str) -> &str {
    match architecture {
        "aarch64" => "arm64",
        "i386" => "386",
        other => other,
    }
}

fn label(name: &str, value: &str) -> Label {
    Label {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn map(of: &BTreeMap<String, String>) -> Option<Map<String, Value>> {
    let pairs = of.iter();
    let map: Map<_, _> = pairs
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    (!map.is_empty()).then_some(map)
}

fn app(execution: &Execution) -> App {
    let (user, group) = user_and_group(&execution.user);
    let words = [&execution.entrypoint, &execution.cmd];
    App {
        exec: words.into_iter().flatten().flatten().cloned().collect(),
        user,
        group,
        working_directory: working_directory(&execution.working_dir),
        environment: execution
            .env
            .iter()
            .filter_map(|text| variable(text))
            .collect(),
        mount_points: mount_points(execution.volumes.keys()),
        ports: ports(execution.exposed_ports.keys()),
        user_labels: map(&execution.labels),
        ..App::default()
    }
}

fn user_and_group(text: &str) -> (String, String) {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let or_root = |text: &str| if text.is_empty() { "0" } else { text }.to_owned();
    (or_root(user), or_root(group))
}

fn working_directory(text: &str) -> String {
    match text {
        "" => String::new(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    }
}

fn variable(text: &str) -> Option<Variable> {
    let (name, value) = text.split_once('=')?;
    (!name.is_empty()).then(|| Variable {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

fn mount_points<'a>(paths: impl Iterator<Item = &'a String>) -> Vec<MountPoint> {
    let mut points: Vec<MountPoint> = Vec::new();
    let mut taken = HashSet::new();
    // How many there are of a name, and so where to go on counting: an image may list hundreds of thousands of paths that come to one name.
    let mut counted: HashMap<String, u32> = HashMap::new();
    for path in paths.filter(|path| path.starts_with('/')) {
        let base =
            sanitize_ac_name(path).map_or("volume".to_owned(), |name| format!("volume-{name}"));
        let mut name = base.clone();
        while !taken.insert(name.clone()) {
            let number = counted.entry(base.clone()).or_insert(0);
            *number += 1;
            name = format!("{base}-{number}");
        }
        points.push(MountPoint {
            name,
            path: path.clone(),
            read_only: false,
        });
    }
    points
}

/// Each once, whether its protocol is written out or not.
fn ports<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Port> {
    let mut names = HashSet::new();
    texts
        .filter_map(|text| port(text))
        .filter(|port| names.insert(port.name.clone()))
        .collect()
}

/// A port as `80`, `80/tcp` or `8000-8010/udp`; `None` for what is none.
pub fn port(text: &str) -> Option<Port> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (port, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    Some(Port {
        name: sanitize_ac_name(&format!("{range}-{protocol}"))?,
        protocol: protocol.to_ascii_lowercase(),
        port: (port > 0).then_some(port)?,
        count: last.checked_sub(port)?.checked_add(1)?,
        socket_activated: false,
    })
}

//! An appc image manifest becomes an OCI configuration: what `source::convert` makes of it is the same manifest again. Pure.
//! OCI image-spec 1.1, "Image Configuration".

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use contract::annotation::{self, STOP_SIGNAL};
use contract::image::{App, Port};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::source::convert::{CMD, ENTRYPOINT, HEALTHCHECK, REPOSITORY, oci_architecture};
use crate::store::{Image, Kind};

/// Annotations of a manifest that are fields of a configuration, not labels of it.
const FIELDS: [&str; 7] = [
    ENTRYPOINT,
    CMD,
    REPOSITORY,
    HEALTHCHECK,
    STOP_SIGNAL,
    "created",
    "authors",
];

/// The configuration of `image`, whose files are one layer.
///
/// # Errors
/// If an annotation of the manifest is damaged.
pub fn configuration(image: &Image, diff_id: &Digest) -> Result<Value> {
    let manifest = &image.manifest;
    let label = |name: &str| {
        let labels = manifest.labels.iter();
        labels
            .rev()
            .find(|label| label.name == name)
            .map(|label| label.value.as_str())
    };
    let mut document = json!({
        "architecture": oci_architecture(label("arch").unwrap_or("amd64")),
        "os": label("os").unwrap_or("linux"),
        "rootfs": {"type": "layers", "diff_ids": [diff_id.to_string()]},
        "config": execution(image)?,
    });
    for (field, name) in [("created", "created"), ("author", "authors")] {
        if let Some(value) = annotation::find(&manifest.annotations, name) {
            document[field] = value.into();
        }
    }
    Ok(document)
}

fn execution(image: &Image) -> Result<Value> {
    let mut document = json!({});
    let mut set = |name: &str, value: Value| {
        let is_empty = value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_str() == Some("");
        if !is_empty && !value.is_null() {
            document[name] = value;
        }
    };
    let (entrypoint, cmd) = words(image)?;
    set("Entrypoint", entrypoint.into());
    set("Cmd", cmd.into());
    set("StopSignal", image.stop_signal().into());
    set("Labels", json!(labels(image)));
    if let Some(check) = annotation::find(&image.manifest.annotations, HEALTHCHECK) {
        let check = serde_json::from_str(check).context("read the image's health check")?;
        set("Healthcheck", check);
    }
    if let Some(app) = &image.manifest.app {
        let variables = app.environment.iter();
        let variables = variables.map(|variable| format!("{}={}", variable.name, variable.value));
        set("User", user(app).into());
        set("Env", variables.collect::<Vec<_>>().into());
        set("WorkingDir", app.working_directory.as_str().into());
        set(
            "Volumes",
            names(app.mount_points.iter().map(|point| point.path.clone())),
        );
        set("ExposedPorts", names(app.ports.iter().map(port)));
    }
    Ok(document)
}

/// Entrypoint and Cmd. What a command line's arguments follow, as those of an ACI do, is an Entrypoint; what they replace, a Cmd.
fn words(image: &Image) -> Result<(Vec<String>, Vec<String>)> {
    let exec = image.manifest.app.as_ref().map(|app| app.exec.clone());
    let exec = exec.unwrap_or_default();
    Ok(match image.kind {
        Kind::Oci => (
            image.entrypoint()?.unwrap_or_default(),
            image.cmd()?.unwrap_or_default(),
        ),
        Kind::Aci => (exec, Vec::new()),
        Kind::RootFs => (Vec::new(), exec),
    })
}

fn labels(image: &Image) -> BTreeMap<&str, &str> {
    let annotations = image.manifest.annotations.iter();
    let labels = annotations.filter(|annotation| !FIELDS.contains(&annotation.name.as_str()));
    labels
        .map(|label| (label.name.as_str(), label.value.as_str()))
        .collect()
}

fn user(app: &App) -> String {
    match (app.user.as_str(), app.group.as_str()) {
        ("0", "0") => String::new(),
        (user, group) if user == group => user.to_owned(),
        (user, group) => format!("{user}:{group}"),
    }
}

/// A set, as the configuration spells it.
fn names(names: impl Iterator<Item = String>) -> Value {
    names
        .map(|name| (name, json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn port(port: &Port) -> String {
    let last = port.port.saturating_add(port.count.saturating_sub(1));
    match port.count {
        0 | 1 => format!("{}/{}", port.port, port.protocol),
        _ => format!("{}-{last}/{}", port.port, port.protocol),
    }
}

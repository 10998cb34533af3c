//! An appc image manifest becomes an OCI configuration: what `source::convert` makes of it is the same manifest again. Pure.
//! OCI image-spec 1.1, "Image Configuration".

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use contract::annotation::{self, HEALTH_CHECK};
use contract::image::{App, Port};
use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::source::convert::annotations::{AUTHORS, COMMENT, CREATED, ON_BUILD, PREFIX, SHELL};
use crate::source::convert::oci_architecture;
use crate::source::document::History;
use crate::store::{Image, Kind};

/// Annotations of a manifest that are fields of a configuration; those with docker's prefix are, too.
const FIELDS: [(&str, &str); 3] = [
    ("created", CREATED),
    ("author", AUTHORS),
    ("comment", COMMENT),
];

/// Names with their values: labels, or annotations of an OCI manifest.
pub type Pairs = BTreeMap<String, String>;

/// The configuration of `image`, whose files are one layer, with these labels.
///
/// # Errors
/// If an annotation of the manifest is damaged.
pub fn configuration(image: &Image, diff_id: &Digest, labels: &Pairs) -> Result<Value> {
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
        "config": execution(image, labels)?,
    });
    if !image.history.is_empty() {
        document["history"] = json!(history(image));
    }
    for (field, name) in FIELDS {
        if let Some(value) = annotation::find(&manifest.annotations, name) {
            document[field] = value.into();
        }
    }
    Ok(document)
}

/// The steps, of which the last that made a layer stands for the one layer.
fn history(image: &Image) -> Vec<History> {
    let mut steps = image.history.clone();
    let last = steps.iter().rposition(|step| !step.empty_layer);
    let last = last.unwrap_or(steps.len().saturating_sub(1));
    for (index, step) in steps.iter_mut().enumerate() {
        step.empty_layer = index != last;
    }
    steps
}

fn execution(image: &Image, labels: &Pairs) -> Result<Value> {
    let mut document = json!({});
    let mut set = |name: &str, value: Value| {
        let is_empty = value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(Map::is_empty)
            || value.as_str() == Some("");
        if !is_empty && !value.is_null() {
            document[name] = value;
        }
    };
    let (entrypoint, cmd) = words(image)?;
    set("Entrypoint", entrypoint.into());
    set("Cmd", cmd.into());
    set("StopSignal", image.stop_signal().into());
    set("Labels", json!(labels));
    for (field, name) in [
        ("Healthcheck", HEALTH_CHECK),
        ("Shell", SHELL),
        ("OnBuild", ON_BUILD),
    ] {
        if let Some(text) = annotation::find(&image.manifest.annotations, name) {
            let value = serde_json::from_str(text).with_context(|| format!("read {name}"))?;
            set(field, value);
        }
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

/// Docker's labels, which are appc's user labels.
pub fn labels(image: &Image) -> Pairs {
    let app = image.manifest.app.as_ref();
    texts(app.and_then(|app| app.user_labels.as_ref()))
}

/// What else is said about the image: an OCI manifest's annotations.
pub fn annotations(image: &Image) -> Pairs {
    let app = image.manifest.app.as_ref();
    let mut pairs = texts(app.and_then(|app| app.user_annotations.as_ref()));
    let is_field = |name: &str| {
        name.starts_with(PREFIX) || FIELDS.iter().any(|(_, annotation)| *annotation == name)
    };
    let annotations = image.manifest.annotations.iter();
    let annotations = annotations.filter(|annotation| !is_field(&annotation.name));
    pairs.extend(annotations.map(|found| (found.name.clone(), found.value.clone())));
    pairs
}

fn texts(map: Option<&Map<String, Value>>) -> Pairs {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let pairs = map.into_iter().flatten();
    pairs
        .map(|(name, value)| (name.clone(), text(value)))
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
        .collect::<Map<_, _>>()
        .into()
}

fn port(port: &Port) -> String {
    let last = port.port.saturating_add(port.count.saturating_sub(1));
    match port.count {
        0 | 1 => format!("{}/{}", port.port, port.protocol),
        _ => format!("{}-{last}/{}", port.port, port.protocol),
    }
}

//! An OCI configuration becomes an appc image manifest, by the rules that docker2aci's users know.
//!
//! Called by the OCI and docker sources; pure. Entrypoint and Cmd stay apart in two annotations, because arguments of
//! the command line replace only the latter. OCI image-spec 1.1, "Image Configuration".

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use contract::ImageManifest;
use contract::annotation::{Annotation, STOP_SIGNAL};
use contract::image::{AC_VERSION, App, ImageKind, Label, MountPoint, Port, Variable};
use contract::name::sanitize_ac_name;

use super::document::{Configuration, Execution};
use super::names::{ac_identifier, is_ac_identifier, split_reference};

/// Annotation: the Entrypoint, a JSON list.
pub const ENTRYPOINT: &str = "appc.io/docker/entrypoint";
/// Annotation: the Cmd, a JSON list.
pub const CMD: &str = "appc.io/docker/cmd";
/// Annotation: the name before the tag; says that volumes are filled as docker does.
pub const REPOSITORY: &str = "appc.io/docker/repository";

/// Annotation: how docker would check the app's health, a JSON object; nothing here runs it.
pub const HEALTHCHECK: &str = "appc.io/docker/healthcheck";

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
    let configuration = described.configuration;
    let (repository, tag) = split_reference(described.name.unwrap_or(described.fallback));
    let mut annotations = annotations(described.annotations, configuration)?;
    if let Some(repository) = described.name.map(|name| split_reference(name).0) {
        annotations.insert(REPOSITORY.to_owned(), repository.to_owned());
    }
    let mut manifest = manifest(repository, described.architecture);
    if let Some(tag) = tag {
        manifest.labels.push(label("version", tag));
    }
    manifest.annotations = annotations
        .into_iter()
        .filter(|(name, _)| is_ac_identifier(name))
        .map(|(name, value)| Annotation { name, value })
        .collect();
    manifest.app = Some(app(&configuration.config));
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

fn annotations(
    of_manifest: &BTreeMap<String, String>,
    configuration: &Configuration,
) -> Result<BTreeMap<String, String>> {
    let execution = &configuration.config;
    let mut annotations = of_manifest.clone();
    annotations.extend(execution.labels.clone());
    for (name, value) in [
        ("created", &configuration.created),
        ("authors", &configuration.author),
        (STOP_SIGNAL, &execution.stop_signal),
    ] {
        if !value.is_empty() {
            annotations.insert(name.to_owned(), value.clone());
        }
    }
    for (name, words) in [(ENTRYPOINT, &execution.entrypoint), (CMD, &execution.cmd)] {
        // What an image calls its own words in a label must not pass for the real ones.
        annotations.remove(name);
        if let Some(words) = words.as_ref().filter(|words| !words.is_empty()) {
            let text = serde_json::to_string(words).context("write words as JSON")?;
            annotations.insert(name.to_owned(), text);
        }
    }
    annotations.remove(HEALTHCHECK);
    if let Some(check) = execution
        .healthcheck
        .as_ref()
        .filter(|check| check.is_object())
    {
        annotations.insert(HEALTHCHECK.to_owned(), check.to_string());
    }
    Ok(annotations)
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
        ports: execution
            .exposed_ports
            .keys()
            .filter_map(|text| port(text))
            .collect(),
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
    // Where to go on counting: an image may list hundreds of thousands of paths that come to one name.
    let mut counted: HashMap<String, u32> = HashMap::new();
    for path in paths.filter(|path| path.starts_with('/')) {
        let base =
            sanitize_ac_name(path).map_or("volume".to_owned(), |name| format!("volume-{name}"));
        let mut name = base.clone();
        while !taken.insert(name.clone()) {
            let number = counted.entry(base.clone()).or_insert(1);
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

/// A port as `80`, `80/tcp` or `8000-8010/udp`; `None` for what is none.
fn port(text: &str) -> Option<Port> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::document::parse;
    use contract::annotation::find;
    use contract::name::is_ac_name;
    use hostile::{damage_json, json_faults};
    use proptest::prelude::*;
    use serde_json::json;

    fn converted(text: &str) -> ImageManifest {
        convert(&Described {
            name: Some("docker.io/library/Tool:1.2"),
            fallback: "x",
            architecture: "arm64",
            annotations: &BTreeMap::new(),
            configuration: &parse::<Configuration>(text.as_bytes(), "config").unwrap(),
        })
        .unwrap()
    }

    #[test]
    fn configuration_with_everything_is_converted() {
        let manifest = converted(
            r#"{"created":"2020-01-01T00:00:00Z","os":"linux","architecture":"arm64","rootfs":{"diff_ids":[]},
            "config":{"User":"app","Env":["A=1=2","broken","=x"],"Entrypoint":["/bin/e","a"],"Cmd":["c"],
            "WorkingDir":"srv","Volumes":{"/data":{},"/Data":{},"/":{}},"StopSignal":"SIGQUIT",
            "ExposedPorts":{"80/tcp":{},"8000-8010/udp":{},"x":{}},
            "Healthcheck":{"Test":["CMD","/bin/c"]},"Labels":{"org.x.y":"z","appc.io/docker/healthcheck":"evil","Upper":"no","appc.io/docker/cmd":"[\"evil\"]"}}}"#,
        );
        let app = manifest.app.unwrap();
        assert_eq!(manifest.name, "docker.io/library/tool");
        assert_eq!(
            manifest.labels[1..],
            [label("arch", "aarch64"), label("version", "1.2")]
        );
        assert_eq!(app.exec, ["/bin/e", "a", "c"]);
        assert_eq!((app.user.as_str(), app.group.as_str()), ("app", "app"));
        assert_eq!(app.working_directory, "/srv");
        assert_eq!(
            (app.environment.len(), app.environment[0].value.as_str()),
            (1, "1=2")
        );
        let names: Vec<_> = app
            .mount_points
            .iter()
            .map(|point| point.name.as_str())
            .collect();
        assert_eq!(names, ["volume", "volume-data", "volume-data-2"]);
        let ports: Vec<_> = app
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.port, port.count))
            .collect();
        assert_eq!(ports, [("80-tcp", 80, 1), ("8000-8010-udp", 8000, 11)]);
        assert_eq!(
            find(&manifest.annotations, ENTRYPOINT),
            Some(r#"["/bin/e","a"]"#)
        );
        assert_eq!(find(&manifest.annotations, CMD), Some(r#"["c"]"#));
        assert_eq!(find(&manifest.annotations, STOP_SIGNAL), Some("SIGQUIT"));
        assert_eq!(
            find(&manifest.annotations, HEALTHCHECK),
            Some(r#"{"Test":["CMD","/bin/c"]}"#)
        );
        assert_eq!(find(&manifest.annotations, "Upper"), None);
    }

    /// Trying every number for each of them would be cubic.
    #[test]
    fn volumes_of_one_name_by_the_hundred_thousand_are_named_apart() {
        let paths: Vec<String> = (0..100_000u32)
            .map(|number| {
                format!(
                    "/{}",
                    format!("{number:017b}").replace('0', "!").replace('1', "?")
                )
            })
            .collect();
        let points = mount_points(paths.iter());
        assert_eq!(points.len(), 100_000);
        assert_eq!(points[99_999].name, "volume-100000");
    }

    proptest! {
        #[test]
        fn configuration_with_faults_gives_a_manifest_that_is_one(faults in json_faults(4)) {
            let mut document = json!({
                "created": "2020-01-01T00:00:00Z", "author": "a", "os": "linux", "architecture": "arm64",
                "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
                "config": {"User": "app:7", "Env": ["A=1"], "Entrypoint": ["/bin/e"], "Cmd": ["c"], "WorkingDir": "srv",
                    "Volumes": {"/data": {}, "/Data": {}}, "StopSignal": "SIGQUIT", "ExposedPorts": {"80-81/tcp": {}},
                    "Labels": {"org.x.y": "z"}}
            });
            damage_json(&mut document, &faults);
            let text = serde_json::to_vec(&document).unwrap();
            let Ok(configuration) = parse::<Configuration>(&text, "config") else { return Ok(()) };
            let manifest = convert(&Described {
                name: Some("tool:1.2"),
                fallback: "x",
                architecture: "arm64",
                annotations: &BTreeMap::new(),
                configuration: &configuration,
            }).unwrap();
            prop_assert!(manifest.annotations.iter().all(|annotation| is_ac_identifier(&annotation.name)));
            let app = manifest.app.as_ref().unwrap();
            let mut names: Vec<_> = app.mount_points.iter().map(|point| &point.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), app.mount_points.len());
            prop_assert!(names.into_iter().all(|name| is_ac_name(name)));
            prop_assert!(app.ports.iter().all(|port| is_ac_name(&port.name) && port.port.checked_add(port.count - 1).is_some()));
            prop_assert!(app.working_directory.is_empty() || app.working_directory.starts_with('/'));
            let again = serde_json::to_vec(&manifest).unwrap();
            prop_assert_eq!(serde_json::from_slice::<ImageManifest>(&again).unwrap(), manifest);
        }
    }

    #[test]
    fn user_of_each_shape_is_split() {
        let texts = ["", "7", "a:b", "a:", ":b"].map(user_and_group);
        let pair = |user: &str, group: &str| (user.to_owned(), group.to_owned());
        assert_eq!(
            texts,
            [
                pair("0", "0"),
                pair("7", "7"),
                pair("a", "b"),
                pair("a", "0"),
                pair("0", "b")
            ]
        );
    }
}

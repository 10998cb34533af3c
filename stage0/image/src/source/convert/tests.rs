//! Configurations as they come, and as they should not.

use super::annotations::{CMD, ENTRYPOINT};
use super::*;
use crate::source::document::parse;
use contract::annotation::{HEALTH_CHECK, STOP_SIGNAL, find};
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
        "Healthcheck":{"Test":["CMD","/bin/c"]},"Labels":{"org.x.y":"z","appc.io/docker/healthcheck":"evil","Upper":"kept","appc.io/docker/stopsignal":"SIGEVIL","appc.io/docker/cmd":"[\"evil\"]"}}}"#,
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
    assert_eq!(names, ["volume", "volume-data", "volume-data-1"]);
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
        find(&manifest.annotations, HEALTH_CHECK),
        Some(r#"{"Test":["CMD","/bin/c"]}"#)
    );
    let labels = app.user_labels.unwrap();
    assert_eq!(labels["Upper"], "kept");
    assert_eq!(labels.len(), 5);
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
    assert_eq!(points[99_999].name, "volume-99999");
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

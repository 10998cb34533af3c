//! Each item of a docker configuration: what docker2aci makes of it for an image of schema 2, and what this does.
//!
//! Its rules are those of its README and of its last source (lib/internal/internal.go).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::source::document::parse;

/// One item.
struct Rule {
    item: &'static str,
    /// What the configuration says.
    docker: Value,
    /// Where it goes in the manifest: `annotation NAME`, `label NAME`, or a JSON pointer.
    place: &'static str,
    /// What docker2aci has there; null for nothing.
    docker2aci: Value,
    /// What is there here.
    ours: Value,
    /// Why they differ, if they do.
    why: &'static str,
}

/// What docker2aci does with an image that it cannot convert.
const REFUSES: &str = "it refuses the image";

/// An item of `config`.
fn of_config(name: &str, value: &Value) -> Value {
    json!({"config": {name: value}})
}

fn same(item: &'static str, docker: Value, place: &'static str, both: Value) -> Rule {
    Rule {
        item,
        docker,
        place,
        docker2aci: both.clone(),
        ours: both,
        why: "",
    }
}

/// What is found at `place` of a manifest.
fn at(manifest: &Value, place: &str) -> Value {
    let named = |list: &str, name: &str| {
        let list = manifest[list].as_array();
        let mut found = list.into_iter().flatten().filter(|it| it["name"] == name);
        found.next().map_or(Value::Null, |it| it["value"].clone())
    };
    match place.split_once(' ') {
        Some(("annotation", name)) => named("annotations", name),
        Some(("label", name)) => named("labels", name),
        _ => manifest.pointer(place).cloned().unwrap_or_default(),
    }
}

fn converted(docker: &Value) -> Value {
    let mut document = json!({"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": []}});
    for (name, value) in docker.as_object().unwrap() {
        document[name] = value.clone();
    }
    let text = document.to_string();
    let manifest = convert(&Described {
        name: Some("quay.io/Team/tool:1.2"),
        fallback: "x",
        architecture: "arm64",
        annotations: &BTreeMap::from([
            ("org.opencontainers.image.title".into(), "Tool".into()),
            ("com.example.buildNumber".into(), "7".into()),
        ]),
        configuration: &parse(text.as_bytes(), "config").unwrap(),
    });
    serde_json::to_value(manifest.unwrap()).unwrap()
}

fn names() -> Vec<Rule> {
    let nothing = || json!({});
    vec![
        same("tag", nothing(), "label version", json!("1.2")),
        same("os", nothing(), "label os", json!("linux")),
        same("architecture", nothing(), "label arch", json!("aarch64")),
        Rule {
            item: "tag",
            docker: nothing(),
            place: "annotation appc.io/docker/tag",
            docker2aci: Value::Null,
            ours: json!("1.2"),
            why: "it does so for images of schema 1 alone",
        },
        same(
            "registry",
            nothing(),
            "annotation appc.io/docker/registryurl",
            json!("quay.io"),
        ),
        same(
            "repository",
            nothing(),
            "annotation appc.io/docker/repository",
            json!("Team/tool"),
        ),
        Rule {
            item: "name",
            docker: nothing(),
            place: "/name",
            docker2aci: json!("quay.io/team/tool-sha256-1234"),
            ours: json!("quay.io/team/tool"),
            why: "the image is not split into one ACI for each layer, and rkt, too, calls the squashed one so",
        },
        Rule {
            item: "name as it was typed",
            docker: nothing(),
            place: "annotation appc.io/docker/originalname",
            docker2aci: json!("quay.io/Team/tool:1.2"),
            ours: Value::Null,
            why: "an image says nothing about who asked for it, and how",
        },
        Rule {
            item: "digest of the configuration",
            docker: nothing(),
            place: "annotation appc.io/docker/imageid",
            docker2aci: json!("sha256:1234"),
            ours: Value::Null,
            why: "the id of an image is that of its manifest and layers, whoever has written its configuration how",
        },
        Rule {
            item: "digest of the manifest",
            docker: nothing(),
            place: "annotation appc.io/docker/manifesthash",
            docker2aci: json!("sha256:5678"),
            ours: Value::Null,
            why: "the same image, compressed otherwise, has another; `image inspect` tells that of the import",
        },
        Rule {
            item: "annotation of the manifest",
            docker: nothing(),
            place: "annotation org.opencontainers.image.title",
            docker2aci: Value::Null,
            ours: json!("Tool"),
            why: "nothing that is said about an image is lost",
        },
        Rule {
            item: "annotation of the manifest that is no ACIdentifier",
            docker: nothing(),
            place: "/app/userAnnotations/com.example.buildNumber",
            docker2aci: Value::Null,
            ours: json!("7"),
            why: "nothing that is said about an image is lost",
        },
    ]
}

fn words() -> Vec<Rule> {
    let both = || json!({"config": {"Entrypoint": ["/bin/e", "a"], "Cmd": ["c"]}});
    vec![
        same(
            "entrypoint and cmd",
            both(),
            "/app/exec",
            json!(["/bin/e", "a", "c"]),
        ),
        same(
            "entrypoint",
            both(),
            "annotation appc.io/docker/entrypoint",
            json!(r#"["/bin/e","a"]"#),
        ),
        same(
            "cmd",
            both(),
            "annotation appc.io/docker/cmd",
            json!(r#"["c"]"#),
        ),
        same(
            "no entrypoint",
            of_config("Entrypoint", &json!([])),
            "annotation appc.io/docker/entrypoint",
            Value::Null,
        ),
        Rule {
            item: "shell of builds",
            docker: of_config("Shell", &json!(["/bin/bash", "-c"])),
            place: "annotation appc.io/docker/shell",
            docker2aci: Value::Null,
            ours: json!(r#"["/bin/bash","-c"]"#),
            why: "who builds on an image that was exported has it again",
        },
        Rule {
            item: "onbuild",
            docker: of_config("OnBuild", &json!(["RUN make"])),
            place: "annotation appc.io/docker/onbuild",
            docker2aci: Value::Null,
            ours: json!(r#"["RUN make"]"#),
            why: "who builds on an image that was exported has it again",
        },
    ]
}

fn surroundings() -> Vec<Rule> {
    let user = |text: &str| of_config("User", &json!(text));
    let env = |list: &[&str]| of_config("Env", &json!(list));
    vec![
        same("no user", json!({}), "/app/user", json!("0")),
        same("no user", json!({}), "/app/group", json!("0")),
        same(
            "user alone, as group",
            user("www"),
            "/app/group",
            json!("www"),
        ),
        same("user and group", user("7:adm"), "/app/user", json!("7")),
        same("user and group", user("7:adm"), "/app/group", json!("adm")),
        Rule {
            item: "user with an empty group",
            docker: user("7:"),
            place: "/app/group",
            docker2aci: json!(""),
            ours: json!("0"),
            why: "an empty group is no group to any stage 1; docker takes root's",
        },
        same(
            "environment",
            env(&["A=1=2", "E=", "none"]),
            "/app/environment",
            json!([{"name": "A", "value": "1=2"}, {"name": "E", "value": ""}]),
        ),
        // Docker's is added when the app starts, by stage 1.
        same("no PATH", env(&[]), "/app/environment", Value::Null),
        same(
            "working directory",
            of_config("WorkingDir", &json!("/srv")),
            "/app/workingDirectory",
            json!("/srv"),
        ),
        Rule {
            item: "relative working directory",
            docker: of_config("WorkingDir", &json!("srv")),
            place: "/app/workingDirectory",
            docker2aci: json!("srv"),
            ours: json!("/srv"),
            why: "appc wants an absolute one; docker takes it from the root",
        },
        Rule {
            item: "labels",
            docker: of_config("Labels", &json!({"Team": "a", "org.x": "y"})),
            place: "/app/userLabels",
            docker2aci: Value::Null,
            ours: json!({"Team": "a", "org.x": "y"}),
            why: "it does so for images of schema 1 alone; keys may be any text there",
        },
        Rule {
            item: "stop signal",
            docker: of_config("StopSignal", &json!("SIGQUIT")),
            place: "annotation appc.io/docker/stopsignal",
            docker2aci: Value::Null,
            ours: json!("SIGQUIT"),
            why: "an app is asked to end by it",
        },
        Rule {
            item: "health check",
            docker: of_config("Healthcheck", &json!({"Test": ["CMD", "/c"]})),
            place: "annotation appc.io/docker/healthcheck",
            docker2aci: Value::Null,
            ours: json!(r#"{"Test":["CMD","/c"]}"#),
            why: "whoever looks after the pod can run it",
        },
        same(
            "created",
            json!({"created": "2020-01-01T00:00:00Z"}),
            "annotation created",
            json!("2020-01-01T00:00:00Z"),
        ),
        Rule {
            item: "author",
            docker: json!({"author": "me"}),
            place: "annotation authors",
            docker2aci: Value::Null,
            ours: json!("me"),
            why: "appc calls it so, and so does docker2aci for images of schema 1; for others, `author`",
        },
        Rule {
            item: "comment",
            docker: json!({"comment": "built by hand"}),
            place: "annotation docker-comment",
            docker2aci: Value::Null,
            ours: json!("built by hand"),
            why: "it does so for images of schema 1 alone",
        },
    ]
}

fn volumes_and_ports() -> Vec<Rule> {
    let volumes = |list: &[&str]| of_config("Volumes", &set(list));
    let ports = |list: &[&str]| of_config("ExposedPorts", &set(list));
    let point = |name: &str, path: &str| json!({"name": name, "path": path, "readOnly": false});
    let port = |name: &str, protocol: &str, port: u16, count: u16| json!({"name": name, "protocol": protocol, "port": port, "count": count, "socketActivated": false});
    vec![
        same(
            "volume",
            volumes(&["/var/tmp"]),
            "/app/mountPoints",
            json!([point("volume-var-tmp", "/var/tmp")]),
        ),
        same(
            "volume at the root",
            volumes(&["/"]),
            "/app/mountPoints",
            json!([point("volume", "/")]),
        ),
        same(
            "volumes of one name",
            volumes(&["/a.b", "/a_b"]),
            "/app/mountPoints",
            json!([point("volume-a-b", "/a.b"), point("volume-a-b-1", "/a_b")]),
        ),
        Rule {
            item: "relative volume",
            docker: volumes(&["data"]),
            place: "/app/mountPoints",
            docker2aci: json!([point("volume-data", "data")]),
            ours: Value::Null,
            why: "appc wants an absolute path, and so does docker",
        },
        same(
            "ports of both protocols",
            ports(&["53/tcp", "53/udp"]),
            "/app/ports",
            json!([port("53-tcp", "tcp", 53, 1), port("53-udp", "udp", 53, 1)]),
        ),
        Rule {
            item: "port without a protocol",
            docker: ports(&["80"]),
            place: "/app/ports",
            docker2aci: json!([port("80", "tcp", 80, 1)]),
            ours: json!([port("80-tcp", "tcp", 80, 1)]),
            why: "it is the same port as 80/tcp, and has one name",
        },
        Rule {
            item: "port written in two ways",
            docker: ports(&["80", "80/tcp"]),
            place: "/app/ports",
            docker2aci: json!([port("80", "tcp", 80, 1), port("80-tcp", "tcp", 80, 1)]),
            ours: json!([port("80-tcp", "tcp", 80, 1)]),
            why: "it is the same port as 80/tcp, and has one name",
        },
        Rule {
            item: "range of ports",
            docker: ports(&["8000-8010/udp"]),
            place: "/app/ports",
            docker2aci: json!(REFUSES),
            ours: json!([port("8000-8010-udp", "udp", 8000, 11)]),
            why: "docker has ranges, and so has appc",
        },
        Rule {
            item: "port that is none",
            docker: ports(&["http/tcp", "0", "70000"]),
            place: "/app/ports",
            docker2aci: json!(REFUSES),
            ours: Value::Null,
            why: "ports are for others to know; the app runs all the same",
        },
    ]
}

fn set(list: &[&str]) -> Value {
    let set: Map<_, _> = list
        .iter()
        .map(|it| ((*it).to_owned(), json!({})))
        .collect();
    set.into()
}

#[test]
fn every_item_is_converted_as_docker2aci_does_or_otherwise_for_a_reason() {
    let rules = [names(), words(), surroundings(), volumes_and_ports()];
    for rule in rules.into_iter().flatten() {
        let found = at(&converted(&rule.docker), rule.place);
        assert_eq!(found, rule.ours, "{}", rule.item);
        let is_same = rule.ours == rule.docker2aci;
        assert_eq!(is_same, rule.why.is_empty(), "{}", rule.item);
    }
}

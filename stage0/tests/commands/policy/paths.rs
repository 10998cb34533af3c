//! Policies for what lies at a path: layouts and archives, by their transports and scopes.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::bench::{Bench, accepted};
use crate::recorder::refused;

fn import(bench: &Bench, policy: &str, path: &str) -> Output {
    let policy = format!("--signature-policy={policy}");
    bench
        .host
        .output(&["image", "import", "--name=x", &policy, path])
}

#[test]
fn layout_and_archive_are_taken_as_their_transport_allows() {
    let bench = Bench::new();
    let at = |name: &str| bench.host.path(name).display().to_string();
    let (layout, above) = (at("1"), at("."));
    let above = above.trim_end_matches("/.");
    let pack = ["tar", "-C", &layout, "-cf", &at("oci.tar"), "."];
    let docker = [
        "skopeo",
        "copy",
        "-q",
        &format!("oci:{layout}"),
        &format!("docker-archive:{}:x:1", at("docker.tar")),
    ];
    for words in [&pack[..], &docker] {
        bench.registry.run(words);
    }
    let (accept, reject) = (
        json!([{"type": "insecureAcceptAnything"}]),
        json!([{"type": "reject"}]),
    );
    let signed = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/hostname"}]);
    let scoped = |scope: &str, one: &Value, rest: &Value| json!({scope: one, "": rest});
    for (path, transport, scopes, taken) in [
        ("1", "oci", scoped(&layout, &accept, &reject), true),
        ("1", "oci", scoped(above, &accept, &reject), true),
        // What an image is called there is no part of its scope.
        (
            "1",
            "oci",
            scoped(&format!("{layout}:x"), &accept, &reject),
            false,
        ),
        ("1", "oci", scoped(&at("2"), &accept, &reject), false),
        ("1", "oci", scoped(&layout, &reject, &accept), false),
        ("1", "oci", json!({"": signed}), false),
        ("1", "oci-archive", json!({"": accept}), false),
        (
            "oci.tar",
            "oci-archive",
            scoped(above, &accept, &reject),
            true,
        ),
        ("oci.tar", "oci", json!({"": accept}), false),
        ("docker.tar", "docker-archive", json!({"": accept}), true),
        ("docker.tar", "oci-archive", json!({"": accept}), false),
        ("image.tar", "tarball", json!({"": accept}), true),
        ("image.tar", "docker-archive", json!({"": accept}), false),
    ] {
        let policy = json!({"default": reject, "transports": {transport: scopes}});
        let policy = bench.policy(&policy.to_string());
        let output = import(&bench, &policy, &at(path));
        match taken {
            true => drop(accepted(&output)),
            false => refused(&output, "not allowed by the signature policy"),
        }
        let run = format!("--signature-policy={policy}");
        let stage1 = format!("--stage1={}", at("stage1"));
        let ran = bench.host.output(&[
            "run",
            &stage1,
            &run,
            &format!("file://{}", at(path)),
            "--",
            "x",
        ]);
        let wanted = Some(if taken { 42 } else { 254 });
        assert_eq!(ran.status.code(), wanted, "{path} {scopes}: {ran:?}");
    }
}

#[test]
fn path_is_looked_up_without_its_links() {
    let bench = Bench::new();
    let (real, link) = (bench.host.path("1"), bench.host.path("link"));
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let (accept, reject) = (
        json!([{"type": "insecureAcceptAnything"}]),
        json!([{"type": "reject"}]),
    );
    for (scope, taken) in [(&real, true), (&link, false)] {
        let oci = json!({scope.display().to_string(): accept});
        let policy = json!({"default": reject, "transports": {"oci": oci}});
        let policy = bench.policy(&policy.to_string());
        let output = import(&bench, &policy, &link.display().to_string());
        assert_eq!(output.status.success(), taken, "{output:?}");
    }
}

#[test]
fn stream_is_taken_as_its_transport_allows() {
    let bench = Bench::new();
    let policy = bench.policy(r#"{"default":[{"type":"reject"}],"transports":{"tarball":{"":[{"type":"insecureAcceptAnything"}]}}}"#);
    let tar = bench.host.path("image.tar");
    let layout = bench.host.path("1");
    let script = r#"tar -C "$1" -c . | "${@:2}""#;
    let policy = format!("--signature-policy={policy}");
    let words = ["image", "import", "--name=x", &policy, "-"];
    let bare = bench
        .host
        .command(&words)
        .stdin(Stdio::from(std::fs::File::open(tar).expect("a tar")))
        .output();
    accepted(&bare.expect("fairing starts"));
    let fairing = bench.host.command(&words);
    let mut piped = Command::new("bash");
    piped
        .args(["-c", script, "bash"])
        .arg(layout)
        .arg(fairing.get_program())
        .args(fairing.get_args());
    refused(&piped.output().expect("bash starts"), "rejects all images");
}

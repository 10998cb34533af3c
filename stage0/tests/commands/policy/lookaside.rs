//! Signatures by those who sign in earnest, where they put them, and servers of signatures that misbehave.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::bench::{Bench, accepted, payload};
use crate::recorder::refused;
use crate::signer::Signer;
use crate::web::{self, Web};

fn signed_by(signer: &Signer) -> serde_json::Value {
    json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": signer.key()}])
}

#[test]
fn signature_of_podman_and_skopeo_is_found_where_they_put_it_and_told() {
    let (bench, signer) = (Bench::new(), Signer::new());
    let (key, known) = (signer.fingerprint(), bench.registries_d());
    let script = r#"set -e
        podman="podman --root=$PWD/storage --runroot=$PWD/run --storage-driver=vfs --registries-conf-dir=$4"
        $podman import -q "$1" localhost/x
        podman --root=$PWD/storage --runroot=$PWD/run --storage-driver=vfs push -q --tls-verify=false --sign-by "$2" localhost/x "$3/by/podman:1"
        skopeo --registries.d "$4" copy -q --src-tls-verify=false --dest-tls-verify=false --sign-by "$2" "docker://$3/tool:1" "docker://$3/by/skopeo:1""#
        .replace(" --registries-conf-dir=$4", "");
    let words = [
        "bash",
        "-c",
        &script,
        "bash",
        "image.tar",
        &key,
        &bench.registry.host,
    ];
    let tar = bench.host.path("image.tar");
    std::fs::copy(tar, bench.registry.path("image.tar")).expect("a copy");
    // The registry's folder is the home of its tools.
    let config = bench.registry.path(".config/containers");
    std::fs::create_dir_all(&config).expect("a folder");
    std::os::unix::fs::symlink(&known, config.join("registries.d")).expect("a link");
    let mut signing = bench.registry.tool(&words);
    signing.arg(known).env("GNUPGHOME", signer.home());
    let signing = signing.output().expect("bash starts");
    assert!(signing.status.success(), "{signing:?}");

    let policy = bench.requiring(&signed_by(&signer));
    let fingerprint = key.to_lowercase();
    for by in ["podman", "skopeo"] {
        let name = bench.name(&format!("by/{by}:1"));
        let said = accepted(&bench.pull(&policy, &name));
        let told = format!("is signed by OpenPGP key {fingerprint} (maker@example.com)");
        assert!(said.contains(&told), "{said}");
        let inspected = bench
            .host
            .stdout(&["image", "inspect", "--format=json", &name]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
        let by = inspected["verified_by"][0].as_str().expect("who vouches");
        assert!(by.contains(&fingerprint), "{by}");
    }
    let stranger = Signer::new();
    let other = bench.requiring(&signed_by(&stranger));
    let name = bench.name("by/podman:1");
    refused(&bench.pull(&other, &name), "is not trusted for this image");
}

#[test]
fn image_that_nobody_must_sign_is_said_to_be_unverified() {
    let bench = Bench::new();
    let name = bench.name("tool:1");
    let policy = bench.requiring(&json!([{"type": "insecureAcceptAnything"}]));
    let said = accepted(&bench.pull(&policy, &name));
    assert!(said.contains("is not verified"), "{said}");
    let inspected = bench
        .host
        .stdout(&["image", "inspect", "--format=json", &name]);
    assert!(inspected.contains("\"verified_by\":[]"), "{inspected}");

    let reject = bench.policy(r#"{"default":[{"type":"reject"}]}"#);
    refused(&bench.pull(&reject, &name), "rejects all images");
    // It is there by that name, and asks nobody.
    let never = format!("--signature-policy={reject}");
    bench
        .host
        .stdout(&["image", "pull", "--pull-policy=new", &never, &name]);
    let flags = ["--insecure-options=image", "image", "pull", &never, &name];
    let said = accepted(&bench.host.output(&flags));
    assert!(said.contains("as --insecure-options asks for"), "{said}");
    refused(&bench.pull("/nowhere/policy.json", &name), "does not exist");
}

#[test]
fn refused_image_is_not_in_the_store_and_none_of_its_layers_was_fetched() {
    let (bench, signer) = (Bench::new(), Signer::new());
    let policy = bench.requiring(&signed_by(&signer));
    refused(
        &bench.pull(&policy, &bench.name("tool:1")),
        "the image has none",
    );
    assert!(bench.registry.blobs_asked_for().is_empty());
    assert!(
        bench
            .host
            .stdout(&["image", "list", "--no-legend"])
            .is_empty()
    );
}

#[test]
fn policy_of_the_user_is_found_by_itself() {
    let bench = Bench::new();
    let name = bench.name("tool:1");
    let folder = bench.host.path("home/.config/containers");
    let reject = r#"{"default":[{"type":"reject"}]}"#;
    std::fs::write(folder.join("policy.json"), reject).expect("a policy");
    refused(
        &bench.host.output(&["image", "pull", &name]),
        "home/.config/containers/policy.json",
    );
    let config = bench.host.path("xdg");
    std::fs::create_dir_all(config.join("containers")).expect("a folder");
    let accept = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    std::fs::write(config.join("containers/policy.json"), accept).expect("a policy");
    // Where podman does not look, nobody does.
    let mut pull = bench.host.command(&["image", "pull", &name]);
    let pull = pull.env("XDG_CONFIG_HOME", &config).output();
    refused(
        &pull.expect("fairing starts"),
        "home/.config/containers/policy.json",
    );
}

/// How a server of signatures answers.
#[derive(Clone, Copy, Debug)]
enum Server {
    Good,
    Huge,
    Endless,
    Countless,
    Broken,
    Failing,
}

#[test]
fn server_of_signatures_that_misbehaves_is_refused_and_not_waited_for() {
    let (bench, signer) = (Bench::new(), Signer::new());
    let claim = payload(&bench.name("tool:1"), &bench.digest).to_string();
    let good = signer.message(&["--sign"], claim.as_bytes());
    let server = Arc::new(Mutex::new(Server::Good));
    let now = Arc::clone(&server);
    let web = Web::new(
        &bench.host.path("web"),
        move |request, to: &mut dyn Write| {
            let first = request.url.ends_with("/signature-1");
            match *now.lock().expect("a lock") {
                Server::Good if first => web::ok(to, "", &good),
                Server::Huge if first => web::ok(to, "", &vec![0x90; 100_000]),
                Server::Endless => {
                    web::send(to, &[b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"]);
                    while to.write_all(&[0x90; 4096]).is_ok() {}
                }
                Server::Countless => web::ok(to, "", b"\x90"),
                Server::Broken => {
                    web::send(to, &[b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx"]);
                }
                Server::Failing => web::status(to, "403 Forbidden"),
                _ => web::status(to, "404 Not Found"),
            }
        },
    );
    let base = format!("http://{}/signatures/", web.address());
    bench.configure(&json!({"docker": {bench.registry.host.clone(): {"lookaside": base}}}));
    let policy = bench.requiring(&signed_by(&signer));
    let image = bench.name("tool:1");
    for (kind, reason) in [
        (Server::Huge, "more than the 65536 bytes"),
        (Server::Endless, "more than the 65536 bytes"),
        (Server::Countless, "more than 64 signatures"),
        (Server::Broken, "breaks off"),
        (Server::Failing, "403"),
    ] {
        *server.lock().expect("a lock") = kind;
        refused(&bench.pull(&policy, &image), reason);
    }
    *server.lock().expect("a lock") = Server::Good;
    web.asked();
    accepted(&bench.pull(&policy, &image));
    let folder = format!("/signatures/tool@{}", bench.digest.replace(':', "="));
    let wanted = [1, 2].map(|number| format!("{folder}/signature-{number}"));
    assert_eq!(web.asked(), wanted);
}

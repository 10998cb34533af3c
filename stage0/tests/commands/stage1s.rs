//! Stage 1s from elsewhere: found by URL and by name, verified, unpacked without root, and gone when nobody needs them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::fetching::{Bench, archive, serve, serving};
use crate::recorder::RECORD;
use crate::signer::Signer;

const URL: &str = "--stage1-url=https://store.example.com/example.com/stage-1.aci";
const NAME: &str = "--stage1-name=example.com/stage:1";

/// A stage 1 whose program is the recorder's, and an image that is none.
fn images() -> Vec<(&'static str, Vec<u8>)> {
    let annotation = |name: &str, value: &str| json!({"name": name, "value": value});
    let more = json!({"app": Value::Null, "annotations": [
        annotation("coreos.com/rkt/stage1/interface-version", "6"),
        annotation("fairing/stage1/rootfs", "erofs"),
        annotation("coreos.com/rkt/stage1/run", "/run"),
    ]});
    let stage = archive(
        "stage",
        &more,
        &[("run", RECORD.as_bytes()), ("rkt/status/.keep", b"")],
    );
    vec![
        ("stage", stage),
        ("app", archive("app", &json!({}), &[("x", b"x")])),
    ]
}

/// A host that trusts their signer.
fn bench() -> Bench {
    let signer = Signer::new();
    let bench = Bench::new(serve(serving(&signer, images())));
    bench.trust(&signer);
    bench
}

/// Exit code and stderr of a pod with this stage 1.
fn run(bench: &Bench, stage1: &[&str]) -> (Option<i32>, String) {
    let image = bench.host.path("image.tar");
    let words = [
        &["run"],
        stage1,
        &[image.to_str().expect("text"), "--", "app"],
    ]
    .concat();
    let output = bench.run(&words);
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn unpacked(bench: &Bench) -> Vec<String> {
    let Ok(entries) = fs::read_dir(bench.host.path("data/stage1")) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name != "lock").collect()
}

#[test]
fn stage1_of_a_url_or_a_name_is_fetched_once_and_runs_the_pod() {
    for flag in [URL, NAME] {
        let bench = bench();
        let (code, told) = run(&bench, &[flag]);
        assert_eq!(code, Some(42), "{flag}: {told}");
        assert!(told.contains("example.com/stage is signed by"), "{told}");
        assert!(!bench.web.asked().is_empty());
        // Not even who wants the newest images asks for it again.
        for policy in ["new", "never", "update"] {
            let policy = format!("--pull-policy={policy}");
            assert_eq!(run(&bench, &[flag, &policy]).0, Some(42), "{flag} {policy}");
        }
        assert_eq!(bench.web.asked(), Vec::<String>::new());
        assert_eq!(unpacked(&bench).len(), 1);
    }
}

#[test]
fn stage1_that_is_not_signed_or_none_is_refused_before_there_is_a_pod() {
    let signer = Signer::new();
    let bench = Bench::new(serve(serving(&signer, images())));
    let refused = |flags: &[&str], reason: &str| {
        let (code, told) = run(&bench, flags);
        assert_eq!(code, Some(254), "{flags:?}: {told}");
        assert!(told.contains(reason), "{flags:?}: {reason:?} not in {told}");
        assert!(bench.host.pods("run").is_empty() && unpacked(&bench).is_empty());
    };
    refused(&[URL], "0 keys are trusted");
    refused(&[NAME], "0 keys are trusted");
    let listed = bench.host.stdout(&["image", "list", "--format=json"]);
    assert_eq!(listed, "[]\n");
    bench.trust(&signer);
    let app = URL.replace("stage-1", "app-1");
    refused(&[&app], "is no stage 1");
    refused(&[&URL.replace("stage-1", "none-1")], "404 Not Found");
    refused(&[URL, "--pull-policy=never"], "--pull-policy=never forbids");
    refused(&["--stage1-url=docker://example.com/x"], "are supported");
    refused(&["--stage1-name=nowhere"], "is no image of the store");
    refused(&["--stage1-hash=sha512-00"], "is no image of the store");
}

#[test]
fn unpacked_stage1_goes_when_it_is_not_used_or_its_image_has_gone() {
    let bench = bench();
    let gc = |flags: &[&str]| bench.host.stdout(&[&["image", "gc"], flags].concat());
    run(&bench, &[URL]);
    let [name] = &unpacked(&bench)[..] else {
        panic!("not one is unpacked");
    };
    assert_eq!(gc(&[]), "");
    assert_eq!(gc(&["--grace-period=0"]), format!("stage1/{name}\n"));
    // A killed command's.
    fs::create_dir_all(bench.host.path("data/stage1/tmp/rootfs")).expect("a folder");
    run(&bench, &[URL]);
    bench.host.stdout(&["image", "rm", name]);
    assert_eq!(gc(&[]), format!("stage1/{name}\n"));
    assert_eq!(unpacked(&bench), Vec::<String>::new());
    assert_eq!(run(&bench, &[URL]).0, Some(42));
    let whole = gc(&["--all", "--grace-period=0"]);
    assert!(whole.contains(&format!("stage1/{name}\n")), "{whole}");
}

#[test]
fn stage1_of_the_store_is_unpacked_without_root() {
    let bench = bench();
    let aci = bench.host.path("stage.aci");
    let [(_, stage), ..] = &images()[..] else {
        panic!("no stage 1")
    };
    fs::write(&aci, stage).expect("a file");
    bench
        .host
        .stdout(&["image", "import", aci.to_str().expect("text")]);
    let image = bench.host.path("image.tar");
    let words = [
        "run",
        "--stage1=example.com/stage:1",
        image.to_str().expect("text"),
        "--",
        "app",
    ];
    let as_root = bench.host.command(&words);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000"]);
    command.arg(as_root.get_program()).args(as_root.get_args());
    for (name, value) in as_root.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().expect("unshare starts");
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    let [name] = &unpacked(&bench)[..] else {
        panic!("not one is unpacked");
    };
    let run = bench.host.path("data/stage1").join(name).join("rootfs/run");
    assert_eq!(fs::metadata(run).expect("a program").mode() & 0o7777, 0o755);
}

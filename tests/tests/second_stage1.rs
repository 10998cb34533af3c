//! A stage 1 that is not ours (`tests/src/bin/stage1_fly.rs`) under our stage 0: found by every form in which one is named,
//! and looked after as far as it has entrypoints. It makes no machine; needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tests::mounted::Mounted;
use tests::running::Running;
use tests::{Finished, fairing, finish, succeed, temporary, test_image};

/// Its name and version.
const NAME: &str = "example.com/stage1-fly";
const VERSION: &str = "1.2.3";

/// Prints whose doing it is that the app runs, and that its root is the image's.
const SHOW: &str = "echo $container; grep -c ^worker: /etc/passwd";

/// A data directory that can hold overlays, and the stage 1 as a folder; all that is mounted in it has to be gone in the end.
struct Host {
    files: Mounted,
    _folder: tempfile::TempDir,
}

impl Host {
    fn with_fly_that_has(entrypoints: &[&str]) -> Self {
        let folder = temporary("fairing-fly-");
        let at = folder.path().join("host");
        let files = Mounted::new("tmpfs", "mode=755", Path::new("tmpfs"), at);
        let host = Self {
            files,
            _folder: folder,
        };
        let root = host.path("fly/rootfs");
        fs::create_dir_all(root.join("rkt/status")).expect("folders");
        let prefix = "coreos.com/rkt/stage1";
        let mut annotations =
            vec![json!({"name": format!("{prefix}/interface-version"), "value": "5"})];
        for name in entrypoints {
            fs::copy(env!("CARGO_BIN_EXE_stage1_fly"), root.join(name)).expect("an entrypoint");
            annotations
                .push(json!({"name": format!("{prefix}/{name}"), "value": format!("/{name}")}));
        }
        let label = |name: &str, value: &str| json!({"name": name, "value": value});
        let manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": NAME, "annotations": annotations,
            "labels": [label("version", VERSION), label("os", "linux"), label("arch", "amd64")]});
        fs::write(host.path("fly/manifest"), manifest.to_string()).expect("a manifest");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The same as `--stage1…=PATH`.
    fn at(&self, flag: &str, name: &str) -> String {
        format!("{flag}={}", self.path(name).display())
    }

    fn fairing(&self) -> Command {
        let mut command = fairing();
        command.arg("--dir").arg(self.path("data"));
        command.arg("--user-config").arg(self.path("config"));
        command
    }

    fn run(&self, flags: &[&str], script: &str) -> Command {
        let mut command = self.fairing();
        command.arg("run").args(flags).arg(test_image("busybox"));
        command.args(["--exec=/bin/sh", "--", "-c", script]);
        command
    }

    /// `fairing` with these words.
    fn does(&self, words: &[&str]) -> Finished {
        finish(self.fairing().args(words))
    }

    #[track_caller]
    fn refuses(&self, words: &[&str], reason: &str) {
        let refused = self.does(words).expect_code(254);
        assert!(
            refused.err().contains(reason),
            "{words:?}: {}",
            refused.err()
        );
    }
}

#[test]
fn foreign_stage1_is_found_by_every_form_in_which_it_is_named() {
    let host = Host::with_fly_that_has(&["run", "gc"]);
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(host.path("fly")).arg("-czf");
    succeed(tar.arg(host.path("fly.aci")).args(["manifest", "rootfs"]));
    let runs = |flags: &[&str]| {
        let finished = finish(&mut host.run(&[&["--rm"], flags].concat(), SHOW)).expect_code(0);
        assert_eq!(finished.out(), "fly\n1\n", "{flags:?}: {}", finished.err());
        // What removes the pod is its gc entrypoint, too: by the words of interface 5.
        assert!(
            finished
                .err()
                .contains("fly: gc --local-config /etc/fairing "),
            "{flags:?}: {}",
            finished.err()
        );
    };
    let refused = |flags: &[&str], reason: &str| {
        let refused = finish(&mut host.run(flags, SHOW)).expect_code(254);
        assert!(
            refused.err().contains(reason),
            "{flags:?}: {}",
            refused.err()
        );
    };
    let named = format!("--stage1-name={NAME}:{VERSION}");
    let never = "--pull-policy=never";
    refused(&[&named, never], "is no image of the store");
    refused(&[&format!("--stage1={NAME}"), never], "does not exist");
    let mut import = host.fairing();
    import.args(["image", "import"]).arg(host.path("fly.aci"));
    let id = finish(&mut import).expect_code(0).out();
    for flag in [
        host.at("--stage1", "fly"),
        host.at("--stage1", "fly.aci"),
        format!("--stage1={NAME}"),
        host.at("--stage1-path", "fly"),
        host.at("--stage1-url", "fly.aci")
            .replacen('=', "=file://", 1),
        format!("--stage1-name={NAME}"),
        named.clone(),
        format!("--stage1-hash={}", id.trim()),
    ] {
        runs(&[&flag]);
    }
    refused(&["--stage1=kvm", &named], "cannot be used with");
    refused(&["--stage1-url=ftp://example.com/fly.aci"], "are supported");
    refused(&["--stage1-hash=sha512-00"], "is no image of the store");
    refused(&["--stage1-from-dir=fly.aci"], "lib/fairing/fly.aci");
    fs::create_dir(host.path("config")).expect("a folder");
    let images = host.files.path().display();
    let config = format!("stage1 = \"{NAME}:{VERSION}\"\nstage1-images = \"{images}\"\n");
    fs::write(host.path("config/config.toml"), config).expect("a configuration");
    runs(&[]);
    runs(&["--stage1-from-dir=fly"]);
}

#[test]
fn pod_of_a_foreign_stage1_is_listed_entered_stopped_and_removed() {
    let host = Host::with_fly_that_has(&["run", "enter", "stop", "gc"]);
    let script = format!("trap 'exit 5' TERM; {SHOW}; while :; do usleep 10000; done");
    let mut pod = Running::start(&mut host.run(&[&host.at("--stage1", "fly")], &script));
    assert_eq!((pod.line(), pod.line()), ("fly".into(), "1".into()));
    let list = host
        .does(&["list", "--full", "--no-legend"])
        .expect_code(0)
        .out();
    assert!(list.contains("running"), "{list}");
    let uuid = list.split_whitespace().next().expect("a pod");
    let status = host.does(&["status", uuid]).expect_code(0);
    assert_eq!(status.value("pid"), pod.pid().to_string());
    let entered = host.does(&["enter", uuid, "/bin/sh", "-c", &format!("{SHOW}; exit 9")]);
    assert_eq!(entered.expect_code(9).out(), "fly\n1\n");
    host.refuses(&["logs", uuid], "its stage 1 keeps none");
    host.refuses(&["attach", uuid], "attach not implemented for stage 1");
    host.refuses(
        &["app", "sandbox", &host.at("--stage1", "fly")],
        "app/add not implemented for stage 1",
    );
    let stopped = host.does(&["stop", uuid]).expect_code(0);
    assert_eq!(stopped.out(), format!("\"{uuid}\"\n"));
    pod.finish().expect_code(5);
    let status = host.does(&["status", uuid]).expect_code(0);
    assert_eq!(status.value("state"), "exited");
    // The first command after its end has it release what it holds.
    let collected = format!("fly: gc --local-config /etc/fairing {uuid}\n");
    assert!(status.err().contains(&collected), "{}", status.err());
    host.does(&["rm", uuid]).expect_code(0);
    assert_eq!(host.does(&["list", "--no-legend"]).expect_code(0).out(), "");
}

#[test]
fn pod_whose_stage1_has_nothing_but_run_is_said_to_be_so_and_still_removed() {
    let host = Host::with_fly_that_has(&["run"]);
    let mut pod =
        Running::start(&mut host.run(&[&host.at("--stage1", "fly")], "echo up; exec sleep 1000"));
    assert_eq!(pod.line(), "up");
    let list = host.does(&["list", "--no-legend"]).expect_code(0).out();
    let uuid = list.split_whitespace().next().expect("a pod");
    host.refuses(
        &["enter", uuid, "/bin/sh"],
        "enter not implemented for stage 1",
    );
    assert!(
        host.does(&["stop", uuid])
            .err()
            .contains("stop not implemented for stage 1")
    );
    host.does(&["kill", uuid]).expect_code(0);
    pod.finish().expect_code(137);
    host.does(&["gc", "--grace-period=0s"]).expect_code(0);
    assert_eq!(host.does(&["list", "--no-legend"]).expect_code(0).out(), "");
}

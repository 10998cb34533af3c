//! A stage 1 of a few lines of shell, and a data directory of its own, for tests that drive the built `fairing`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Writes down what the contract promises: argv, working directory, environment, descriptors.
pub const RECORD: &str = r#"#!/bin/sh
{
    echo "argv0=$0"
    for word; do echo "arg=$word"; done
    echo "cwd=$(pwd)"
    env
    for fd in 0 1 2 3 4 5 6 7 8 9; do
        [ -e "/proc/$$/fd/$fd" ] && echo "fd$fd=$(readlink "/proc/$$/fd/$fd")"
    done
} >"$RECORD"
echo $$ >pid
exit 42
"#;

/// A `run` that lives until it is asked to end, and then leaves with 7.
pub const LIVING: &str = "#!/bin/sh\ntrap 'exit 7' TERM\necho $$ >pid\nln -s ready stage1/rootfs/rkt/supervisor-status\nwhile :; do sleep 0.05; done\n";

/// How long a test waits for something that always happens.
const DEADLINE: Duration = Duration::from_secs(60);

/// A host for one test.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// A host whose stage 1 has `run` as its entrypoint, and a root file system with one file as image.
    pub fn new(run: &str) -> Self {
        let host = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        let rootfs = host.path("stage1/rootfs");
        fs::create_dir_all(rootfs.join("rkt/status")).expect("stage 1 directories");
        host.entrypoint("run", run);
        host.manifest(&["run"]);
        let none = "unqualified-search-registries = []";
        fs::write(host.path("registries.conf"), none).expect("a configuration");
        let built = format!(
            "[storage]\ndriver = \"\"\ngraphroot = {:?}\n",
            host.path("storage")
        );
        fs::write(host.path("storage.conf"), built).expect("a configuration");
        let mut image = tar::Builder::new(fs::File::create(host.path("image.tar")).expect("tar"));
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o755);
        image
            .append_data(&mut header, "bin/app", &b"x\n"[..])
            .and_then(|()| image.into_inner().map(drop))
            .expect("a tar with one file");
        host
    }

    /// A path of this host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a program of the stage 1.
    pub fn entrypoint(&self, name: &str, script: &str) {
        let path = self.path("stage1/rootfs").join(name);
        fs::write(&path, script).expect("an entrypoint");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("mode");
    }

    /// Writes the stage 1 manifest with these entrypoints.
    pub fn manifest(&self, entrypoints: &[&str]) {
        let mut annotations = vec![
            r#"{"name":"coreos.com/rkt/stage1/interface-version","value":"6"}"#.to_owned(),
            r#"{"name":"fairing/stage1/rootfs","value":"erofs"}"#.to_owned(),
        ];
        annotations.extend(
            entrypoints.iter().map(|name| {
                format!(r#"{{"name":"coreos.com/rkt/stage1/{name}","value":"/{name}"}}"#)
            }),
        );
        let text = format!(
            r#"{{"acVersion":"0.8.11","acKind":"ImageManifest","name":"recorder","annotations":[{}]}}"#,
            annotations.join(",")
        );
        fs::write(self.path("stage1/manifest"), text).expect("a manifest");
    }

    /// Makes the stage 1 one of another interface version; `None` says nothing of it, which means 1.
    pub fn speaks(&self, version: Option<u32>) {
        let path = self.path("stage1/manifest");
        let manifest = fs::read_to_string(&path).expect("a manifest");
        let said = |version: &str| {
            format!(r#"{{"name":"coreos.com/rkt/stage1/interface-version","value":"{version}"}},"#)
        };
        let other = version.map_or_else(String::new, |version| said(&version.to_string()));
        fs::write(path, manifest.replace(&said("6"), &other)).expect("a manifest");
    }

    /// `fairing` with these words, not started; `run` and `prepare` get stage 1 and image by [`Host::run`].
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairing"));
        command
            .arg("--dir")
            .arg(self.path("data"))
            .arg("--user-config")
            .arg(self.path("config"))
            .args(words)
            .env("RECORD", self.path("record"))
            // Neither a test nor what it gets wrong asks this host's registries, shows them its logins, or sees what
            // is built here.
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"))
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_CONFIG")
            .stdin(Stdio::null());
        command
    }

    /// `fairing COMMAND --stage1=… FLAGS image.tar -- app`, not started.
    pub fn pod(&self, command: &str, flags: &[&str]) -> Command {
        let mut words = self.command(&[command]);
        words
            .arg(format!("--stage1={}", self.path("stage1").display()))
            .args(flags)
            .arg(self.path("image.tar"))
            .args(["--", "app"]);
        words
    }

    /// Output of `fairing` with these words.
    pub fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("fairing starts")
    }

    /// Stdout of `fairing` with these words, which must succeed.
    pub fn stdout(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// UUIDs of the pods in a folder of `pods/`.
    pub fn pods(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("data/pods").join(folder));
        entries.map_or_else(
            |_| Vec::new(),
            |entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .collect()
            },
        )
    }
}

/// Sees that a command was refused for `reason`.
#[track_caller]
pub fn refused(output: &Output, reason: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(254), "{text}");
    assert!(text.contains(reason), "{reason:?} not in: {text}");
}

/// Waits for a fact.
pub fn until(what: &str, fact: impl Fn() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < DEADLINE, "not within a minute: {what}");
        std::thread::yield_now();
    }
}

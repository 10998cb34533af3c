//! Debian's docker-registry on loopback, for as long as a test lives.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Finished, finish_within, succeed, temporary, wait_until};

/// Who may enter a guarded registry.
pub const LOGIN: &str = "user:secret";

/// A certificate that vouches for itself, where `--cert-dir` and its like look for it, and a password.
const GUARD: &str = "mkdir certs && \
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=registry \
    -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out certs/ca.crt && htpasswd -Bbn user secret >htpasswd";

/// A registry.
pub struct Registry {
    folder: tempfile::TempDir,
    /// podman takes no long path for what it keeps while it runs.
    run: tempfile::TempDir,
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    /// One without TLS, open to everybody.
    #[track_caller]
    pub fn open() -> Self {
        Self::start(temporary("fairing-registry-"), "")
    }

    /// The same, its folder with all that tools make in it below `parent`.
    #[track_caller]
    pub fn below(parent: &Path) -> Self {
        Self::start(
            tempfile::tempdir_in(parent).expect("a temporary folder"),
            "",
        )
    }

    /// One with TLS, for who knows the password.
    #[track_caller]
    pub fn guarded() -> Self {
        let folder = temporary("fairing-registry-");
        succeed(
            Command::new("sh")
                .args(["-ec", GUARD])
                .current_dir(folder.path()),
        );
        let path = |name: &str| folder.path().join(name).display().to_string();
        let guard = format!(
            "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            path("certs/ca.crt"),
            path("server.key"),
            path("htpasswd")
        );
        Self::start(folder, &guard)
    }

    #[track_caller]
    fn start(folder: tempfile::TempDir, guard: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let content = folder.path().join("content");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {host}\n{guard}",
            content.display()
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).expect("a configuration");
        drop(listener);
        let log = File::create(folder.path().join("log")).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            folder,
            run: temporary("fairing-run-"),
            child,
            host,
        };
        wait_until("the registry listens", || {
            TcpStream::connect(&registry.host).is_ok()
        });
        registry
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `docker://` and the name of an image there.
    pub fn url(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.host)
    }

    /// Runs a program that knows nothing of this host's logins and images, to its end, which must be a success.
    #[track_caller]
    pub fn tool(&self, words: &[&str]) -> Finished {
        // What root's tools remember of blobs lies in one place, which an emulated host sees change below it.
        let apart =
            "mkdir -p /var/lib/containers; mount -t tmpfs none /var/lib/containers; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", apart, "sh"]);
        command.args(words).stdin(Stdio::null());
        command.env("HOME", self.folder.path());
        let finished = finish_within(crate::DEADLINE * 6, command.current_dir(self.folder.path()));
        finished.expect_code(0)
    }

    /// `podman` or `buildah` with a storage of its own.
    #[track_caller]
    pub fn builder(&self, program: &str, words: &[&str]) -> Finished {
        let [root, run] = self.storage();
        let flags = [
            program,
            "--root",
            &root,
            "--runroot",
            &run,
            "--storage-driver=vfs",
        ];
        self.tool(&[&flags[..], words].concat())
    }

    /// What skopeo and fairing call an image of that storage.
    pub fn builders_image(&self, name: &str) -> String {
        let [root, run] = self.storage();
        format!("containers-storage:[vfs@{root}+{run}]{name}")
    }

    fn storage(&self) -> [String; 2] {
        let root = self.path("storage");
        [root.as_path(), self.run.path()].map(|path| path.display().to_string())
    }

    /// Whether fairing has asked there for what has this digest.
    pub fn was_asked_for(&self, digest: &str) -> bool {
        let log = fs::read_to_string(self.path("log")).expect("a log");
        let mut lines = log.lines().filter(|line| line.contains("\"fairing/"));
        lines.any(|line| line.contains(digest))
    }

    /// Puts an image of a layout there, by skopeo, with all of its index.
    #[track_caller]
    pub fn push(&self, layout: &Path, tag: &str, image: &str) {
        let from = format!("oci:{}:{tag}", layout.display());
        let flags = ["--all", "--quiet", "--dest-tls-verify=false"];
        let words = [&["skopeo", "copy"], &flags[..], &[&from, &self.url(image)]];
        self.tool(&words.concat());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has died by itself has failed its test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

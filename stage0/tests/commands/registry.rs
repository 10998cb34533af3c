//! Debian's docker-registry on loopback for one test, and images to put there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use image::oci::{Algorithm, Digest};
use serde_json::{Value, json};

use crate::recorder::until;

/// Who may enter a guarded registry.
pub const LOGIN: &str = "user:secret";

/// Makes an authority, and certificates of a server and a client.
const CERTIFICATES: &str = r#"
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" "${@:2}"; }
signed() { new "$1" -out "$1.csr" && openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
    -extfile <(echo subjectAltName=IP:127.0.0.1) -out "$2"; }
set -e
new ca -x509 -days 2 -out ca.crt; signed server server.crt; signed client client.cert
new self -x509 -days 2 -addext subjectAltName=IP:127.0.0.1 -out self.crt
mkdir certs self-certs && cp ca.crt client.cert client.key certs && cp self.crt self-certs/ca.crt
htpasswd -Bbn user secret >htpasswd
"#;

/// How a registry is guarded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Not at all.
    None,
    /// TLS of an authority of its own, client certificates and a password.
    Everything,
    /// TLS with a certificate that vouches for itself.
    SelfSigned,
}

/// A registry that ends with its test.
pub struct Registry {
    dir: tempfile::TempDir,
    child: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    /// One that is guarded so.
    pub fn new(guard: Guard) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        if guard != Guard::None {
            let script = Command::new("bash")
                .args(["-c", CERTIFICATES])
                .current_dir(dir.path())
                .output();
            succeed(&script.expect("bash starts"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let path = |name: &str| dir.path().join(name);
        let mut config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": path("content")}},
            "http": {"addr": host},
        });
        if guard == Guard::Everything {
            config["http"]["tls"] = json!({"certificate": path("server.crt"), "key": path("server.key"), "clientcas": [path("ca.crt")]});
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": path("htpasswd")}});
        } else if guard == Guard::SelfSigned {
            config["http"]["tls"] =
                json!({"certificate": path("self.crt"), "key": path("self.key")});
        }
        fs::write(path("config.yml"), config.to_string()).expect("a configuration");
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(path("log"))
                .expect("a log")
        };
        drop(listener);
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { dir, child, host };
        until("the registry listens", || {
            TcpStream::connect(&registry.host).is_ok()
        });
        registry
    }

    /// A path of the registry's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The name of an image there.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }

    /// A program that knows nothing of this host's logins, not started.
    pub fn tool(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a program, which must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        succeed(&self.tool(words).output().expect("the program starts"))
    }

    /// Puts an OCI layout there by skopeo, all of its images.
    pub fn push(&self, layout: &Path, image: &str) {
        let (from, to) = (
            format!("oci:{}", layout.display()),
            format!("docker://{}", self.name(image)),
        );
        let plain = "--dest-tls-verify=false";
        self.run(&["skopeo", "copy", "--all", "--quiet", plain, &from, &to]);
    }

    /// How often fairing has asked for each blob.
    pub fn blobs_asked_for(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in self.requests() {
            if let Some((_, rest)) = line.split_once("/blobs/") {
                let digest = rest.split(' ').next().unwrap_or_default();
                *counts.entry(digest.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// What fairing has asked for, a line of the log for each.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).expect("a log");
        let lines = log
            .lines()
            .filter(|line| line.contains("\"fairing/") && line.contains("\"GET /v2/"));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has died by itself has failed its test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An OCI layout in the making.
pub struct Layout {
    pub path: PathBuf,
}

impl Layout {
    /// An empty one.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).expect("a layout");
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a mark");
        Self { path }
    }

    /// Adds a manifest of an image with these files, a layer for each.
    pub fn image(&self, architecture: &str, files: &[(&str, &[u8])]) -> Value {
        self.packed(architecture, files, "", <[u8]>::to_vec)
    }

    /// As `image`, its layers compressed so, which their type says by this ending.
    pub fn packed(
        &self,
        architecture: &str,
        files: &[(&str, &[u8])],
        ending: &str,
        compress: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Value {
        let layers: Vec<_> = files
            .iter()
            .map(|(name, content)| tar(name, content))
            .collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({"os": "linux", "architecture": architecture, "config": {"Cmd": [architecture]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.blob("image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| self.blob(&format!("image.layer.v1.tar{ending}"), &compress(layer)))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers});
        let mut manifest = self.blob("image.manifest.v1+json", manifest.to_string().as_bytes());
        manifest["platform"] = json!({"os": "linux", "architecture": architecture});
        manifest
    }

    /// Adds an index of these manifests.
    pub fn index(&self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests});
        self.blob("image.index.v1+json", index.to_string().as_bytes())
    }

    /// Makes it the layout of this image or index.
    pub fn of(self, top: &Value) -> PathBuf {
        let index = json!({"schemaVersion": 2, "manifests": [top]});
        fs::write(self.path.join("index.json"), index.to_string()).expect("an index");
        self.path
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let path = self.path.join("blobs").join(digest.replace(':', "/"));
        fs::write(path, bytes).expect("a blob");
        json!({"mediaType": format!("application/vnd.oci.{kind}"), "digest": digest, "size": bytes.len()})
    }
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, name, content)
        .and_then(|()| tar.into_inner())
        .expect("a tar with one file")
}

//! A host with a registry, a folder of signatures, and an image there in two versions.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::recorder::{Host, RECORD};
use crate::registry::{Guard, Layout, Registry};

/// What is given to skopeo and fairing alike.
pub struct Bench {
    pub host: Host,
    pub registry: Registry,
    /// The digest of `tool:1`.
    pub digest: String,
}

impl Bench {
    pub fn new() -> Self {
        let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
        for tag in ["1", "2"] {
            let layout = Layout::new(host.path(tag));
            let image = layout.image("amd64", &[("a", tag.as_bytes())]);
            registry.push(&layout.of(&image), &format!("tool:{tag}"));
        }
        let image = format!("docker://{}", registry.name("tool:1"));
        let inspect = [
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--format={{.Digest}}",
        ];
        let digest = registry.run(&[&inspect[..], &[&image]].concat());
        let bench = Self {
            digest: digest.trim().to_owned(),
            host,
            registry,
        };
        bench.configure(&json!({"default-docker": {
            "lookaside": format!("file://{}", bench.signatures().display()),
            "use-sigstore-attachments": true,
        }}));
        bench
    }

    /// Makes this what is known of registries' signatures. JSON is YAML.
    pub fn configure(&self, known: &Value) {
        let folder = self.registries_d();
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("own.yaml"), known.to_string()).expect("a configuration");
    }

    pub fn registries_d(&self) -> PathBuf {
        self.host.path("home/.config/containers/registries.d")
    }

    pub fn signatures(&self) -> PathBuf {
        self.host.path("signatures")
    }

    /// The name of an image of the registry.
    pub fn name(&self, image: &str) -> String {
        self.registry.name(image)
    }

    /// Makes these the signatures of `tool:1`.
    pub fn sign(&self, signatures: &[Vec<u8>]) {
        let folder = format!("tool@{}", self.digest.replace(':', "="));
        let folder = self.signatures().join(folder);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        for (number, signature) in signatures.iter().enumerate() {
            let path = folder.join(format!("signature-{}", number + 1));
            fs::write(path, signature).expect("a signature");
        }
    }

    /// The policy `text`, in a file.
    pub fn policy(&self, text: &str) -> String {
        let path = self.host.path("policy.json");
        fs::write(&path, text).expect("a policy");
        path.display().to_string()
    }

    /// A policy that requires this of all images of the registry, and rejects all others.
    pub fn requiring(&self, requirements: &Value) -> String {
        let docker = json!({self.registry.host.clone(): requirements});
        let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": docker}});
        self.policy(&policy.to_string())
    }

    pub fn pull(&self, policy: &str, image: &str) -> Output {
        let policy = format!("--signature-policy={policy}");
        self.host.output(&["image", "pull", &policy, image])
    }

    /// Whether skopeo takes an image by the policy; `from` is as skopeo spells it.
    pub fn skopeo(&self, policy: &str, from: &str) -> Output {
        let out = tempfile::tempdir().expect("a folder");
        let (to, known) = (format!("dir:{}", out.path().display()), self.registries_d());
        let known = known.to_str().expect("a name of ours");
        let global = [
            "skopeo",
            "--policy",
            policy,
            "--registries.d",
            known,
            "copy",
        ];
        let words = [&global[..], &["-q", "--src-tls-verify=false", from, &to]].concat();
        let output = self.registry.tool(&words).output();
        output.expect("skopeo starts")
    }
}

/// What simple signing signs.
pub fn payload(name: &str, digest: &str) -> Value {
    json!({"critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": name},
        }, "optional": {"creator": "test", "timestamp": 1_700_000_000}})
}

/// Stderr of a command that must have succeeded.
#[track_caller]
pub fn accepted(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

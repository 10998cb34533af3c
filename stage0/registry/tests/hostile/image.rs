//! An image to serve, and a host that pulls it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use image::oci::{Algorithm, Digest};
use registry::{Access, Blobs, Options, Patience, Verify};
use serde_json::{Value, json};

use crate::double::{Answer, Body, Double, Request};

/// Longer than any of these pulls may take, all attempts together.
const DEADLINE: Duration = Duration::from_secs(20);

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Documents and blobs by digest, and what the tag means.
#[derive(Clone, Debug, Default)]
pub struct Served {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub manifests: BTreeMap<String, Vec<u8>>,
    pub top: Vec<u8>,
}

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

/// Points to some bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// Bytes that differ from those of other seeds.
pub fn layer(seed: u8, length: usize) -> Vec<u8> {
    let period = (0..251u8).map(|byte| seed.wrapping_add(byte));
    period.cycle().take(length).collect()
}

impl Served {
    /// An image with these layers.
    pub fn new(layers: &[Vec<u8>]) -> Self {
        let mut served = Self::default();
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}});
        let config = served.blob(config.to_string().into_bytes(), CONFIG_TYPE);
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| served.blob(layer.clone(), LAYER_TYPE))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers});
        served.top = manifest.to_string().into_bytes();
        served
    }

    fn blob(&mut self, bytes: Vec<u8>, media_type: &str) -> Value {
        let pointing = descriptor(media_type, &bytes);
        self.blobs.insert(digest(&bytes), bytes);
        pointing
    }

    /// The manifest of the tag, changed.
    pub fn changed(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = serde_json::from_slice(&self.top).expect("a manifest of ours");
        change(&mut manifest);
        self.top = manifest.to_string().into_bytes();
        self
    }

    /// As an honest registry answers.
    pub fn answer(&self, request: &Request) -> Answer {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        let found = if request.path.contains("/blobs/") {
            self.blobs.get(last)
        } else if last == "latest" || last == digest(&self.top) {
            Some(&self.top)
        } else {
            self.manifests.get(last)
        };
        let Some(bytes) = found else {
            return Answer::new(
                404,
                r#"{"errors":[{"code":"UNKNOWN","message":"not here"}]}"#,
            );
        };
        match request.from() {
            Some(from) => ranged(from, &bytes[from..], bytes.len()),
            None => Answer::new(200, bytes.clone()),
        }
    }
}

/// A part of a blob, from `from` on.
pub fn ranged(from: usize, bytes: &[u8], length: usize) -> Answer {
    let range = format!("bytes {from}-{}/{length}", length - 1);
    Answer::new(206, bytes).with("Content-Range", range)
}

/// `answer` cut off after `bytes`, while its length is said as it was.
pub fn broken(answer: Answer, bytes: usize) -> Answer {
    match answer.body {
        Body::Whole(whole) => Answer {
            body: Body::Broken {
                bytes: whole[..bytes.min(whole.len())].to_vec(),
                said: whole.len(),
            },
            ..answer
        },
        _ => answer,
    }
}

/// Who pulls.
pub struct Host {
    dir: tempfile::TempDir,
    pub blobs: Blobs,
    pub options: Options,
}

impl Host {
    /// One with little patience.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            blobs: Blobs::new(dir.path().join("blobs")),
            dir,
            options: Options {
                credentials: None,
                authfile: None,
                cert_dir: None,
                verify: Verify::Configured,
                max_bytes: 64 << 20,
                patience: Patience {
                    connect: Duration::from_secs(5),
                    answer: Duration::from_secs(1),
                    pace: Duration::from_millis(300),
                    least_bytes: 1000,
                    attempts: 3,
                    pause: Duration::from_millis(10),
                    longest_pause: Duration::from_millis(100),
                },
            },
        }
    }

    /// Pulls `HOST/test/image`, and says where its layout is.
    pub fn pull(&self, double: &Double) -> Result<PathBuf> {
        self.pull_named(&format!("{}/test/image", double.host()))
    }

    /// Pulls an image into a layout of its own; in any case within the deadline.
    pub fn pull_named(&self, name: &str) -> Result<PathBuf> {
        let begun = Instant::now();
        let access = Access::new(self.options.clone())?;
        let layout = tempfile::tempdir_in(self.dir.path())?.keep();
        let pulled = access
            .find(&name.parse()?, "amd64")
            .and_then(|found| found.fetch(&self.blobs, &layout, &|_| false, &|_| {}));
        assert!(begun.elapsed() < DEADLINE, "it took {:?}", begun.elapsed());
        pulled.map(|()| layout)
    }

    /// The error of a pull that must fail.
    #[track_caller]
    pub fn refused(&self, double: &Double) -> String {
        let error = self.pull(double).expect_err("a registry that misbehaves");
        format!("{error:#}")
    }

    /// Names and sizes of the files among the blobs.
    pub fn kept(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(self.dir.path().join("blobs/sha256"));
        let entries = entries.map_or_else(|_| Vec::new(), |entries| entries.flatten().collect());
        let kept = entries.iter().map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.metadata().expect("a file").len())
        });
        kept.collect()
    }

    /// Puts the beginning of a blob there, as a killed pull leaves it.
    pub fn leave_part(&self, digest: &str, bytes: &[u8]) {
        let folder = self.dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&folder).expect("a folder");
        let hex = digest.trim_start_matches("sha256:");
        std::fs::write(folder.join(format!("{hex}.part")), bytes).expect("a part");
    }
}

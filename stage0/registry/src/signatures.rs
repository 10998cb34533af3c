//! Signatures of an image in a registry: OpenPGP messages of "simple signing" below a URL of their own (the lookaside), and
//! sigstore's, which lie in the registry under a tag that is made of the image's digest.
//!
//! Called by whoever pulls, once the manifest is there. Whether they are good is not decided here.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::bounded;
use image::oci::{self, Descriptor, Digest, MAX_JSON_BYTES, Manifest};

use crate::client::{self, Client};
use crate::config::Lookaside;
use crate::pull::Found;
use transfer::Cancel;

/// Largest signature, or document that was signed, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Signatures of one kind that an image may have.
const MAX_SIGNATURES: usize = 64;

/// The type of a document that sigstore has signed.
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with its signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json";

/// A document and a signature over it.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The document.
    pub payload: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl Found {
    /// The OpenPGP messages that are kept for the image, as containers-registries.d(5) says where.
    ///
    /// # Errors
    /// If they cannot be had, are too many or too large; that there is none is no error.
    pub fn simple_signatures(&self) -> Result<Vec<Vec<u8>>> {
        let lookaside = Lookaside::load(|name| std::env::var_os(name))?;
        let client = self.client();
        let Some(base) = lookaside.base(&client.endpoint().reference) else {
            return Ok(Vec::new());
        };
        let digest = self.digest().to_string();
        let folder = format!("{base}@{}", digest.replacen(':', "=", 1));
        let mut signatures = Vec::new();
        loop {
            let url = format!("{folder}/signature-{}", signatures.len() + 1);
            let found = one(client, &url).with_context(|| format!("fetch signature {url}"))?;
            let Some(signature) = found else {
                return Ok(signatures);
            };
            ensure!(
                signatures.len() < MAX_SIGNATURES,
                "{folder} holds more than {MAX_SIGNATURES} signatures"
            );
            signatures.push(signature);
        }
    }

    /// Sigstore's signatures that the registry has of the image, if containers-registries.d(5) says that it has such.
    ///
    /// # Errors
    /// If they cannot be had, are too many or too large; that there is none is no error.
    pub fn sigstore_signatures(&self) -> Result<Vec<Attached>> {
        let lookaside = Lookaside::load(|name| std::env::var_os(name))?;
        let client = self.client();
        if !lookaside.attachments(&client.endpoint().reference) {
            return Ok(Vec::new());
        }
        let digest = self.digest().to_string();
        let tag = format!("{}.sig", digest.replacen(':', "-", 1));
        attached(client, &tag).with_context(|| format!("fetch signatures {tag}"))
    }
}

fn one(client: &Client, url: &str) -> Result<Option<Vec<u8>>> {
    match url.split_once("://") {
        Some(("file", path)) => file(Path::new(path)),
        Some(("http" | "https", _)) => client.elsewhere(url, MAX_BYTES),
        _ => bail!("signatures are looked for below file:, http: and https: URLs alone"),
    }
}

fn file(path: &Path) -> Result<Option<Vec<u8>>> {
    // Before it is opened: a pipe would have that wait.
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    ensure!(metadata.is_file(), "it is not a file");
    bounded::read(fs::File::open(path)?, MAX_BYTES).map(Some)
}

fn attached(client: &Client, tag: &str) -> Result<Vec<Attached>> {
    let cancel = Cancel::default();
    let path = format!("manifests/{tag}");
    let found = client::if_any(client.document(&path, ACCEPT, MAX_JSON_BYTES, &cancel))?;
    let Some(found) = found else {
        return Ok(Vec::new());
    };
    let manifest: Manifest = oci::parse(&found.bytes, "the manifest")?;
    let layers = manifest.layers.iter();
    let layers: Vec<_> = layers
        .filter(|layer| layer.media_type == PAYLOAD_TYPE)
        .collect();
    ensure!(
        layers.len() <= MAX_SIGNATURES,
        "it holds more than {MAX_SIGNATURES} signatures"
    );
    layers
        .into_iter()
        .map(|layer| {
            let payload = payload(client, layer, &cancel)
                .with_context(|| format!("fetch blob {}", layer.digest))?;
            // One that is no base64 is no signature, as one that is missing: others may be.
            let signature = layer.annotations.get(SIGNATURE);
            let signature = signature.and_then(|text| STANDARD.decode(text).ok());
            Ok(Attached {
                payload,
                signature: signature.unwrap_or_default(),
            })
        })
        .collect()
}

fn payload(client: &Client, layer: &Descriptor, cancel: &Cancel) -> Result<Vec<u8>> {
    let digest: Digest = layer.digest.parse()?;
    ensure!(
        layer.size <= MAX_BYTES,
        "it has {} bytes, more than {MAX_BYTES}",
        layer.size
    );
    let path = format!("blobs/{digest}");
    let bytes = client.document(&path, "*/*", layer.size, cancel)?.bytes;
    ensure!(
        Digest::of(digest.algorithm(), &bytes) == digest,
        "wrong digest: the registry sends something else"
    );
    Ok(bytes)
}

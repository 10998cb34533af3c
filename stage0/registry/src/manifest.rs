//! From a reference to the manifest of the image for one architecture, through indexes.
//!
//! Which of several manifests it is, is decided as for layouts (`image::oci::select`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use image::oci::{
    self, Algorithm, Descriptor, Digest, Documents, Index, MAX_JSON_BYTES, Manifest, Platform,
    Several,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use transfer::Cancel;

use crate::client::Client;

/// Types of documents asked for; those of schema 1 in order to say what they are.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1, \
    application/vnd.docker.distribution.manifest.v1+json;q=0.1";

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes of all documents together that one reference may lead to.
const MAX_DOCUMENTS_BYTES: u64 = 32 << 20;

/// The image that was meant.
pub struct Chosen {
    pub client: Client,
    /// Points to the manifest.
    pub descriptor: Descriptor,
    pub digest: Digest,
    pub manifest: Manifest,
    /// The manifest as it came.
    pub bytes: Vec<u8>,
}

/// Asks the registry what its reference is on `architecture`.
///
/// # Errors
/// If there is no such image, or what there is is none.
pub fn find(client: Client, architecture: &str) -> Result<Chosen> {
    let reference = &client.endpoint().reference;
    let path = format!("manifests/{}", reference.version());
    let cancel = Cancel::default();
    let top = client.document(&path, ACCEPT, MAX_JSON_BYTES, &cancel)?;
    let promised = reference.digest();
    let algorithm = promised.map_or(Algorithm::Sha256, Digest::algorithm);
    let digest = Digest::of(algorithm, &top.bytes);
    if let Some(promised) = promised {
        ensure!(
            digest == *promised,
            "wrong digest: registry {} sends {digest} for it",
            reference.host()
        );
    }
    let media_type = Shape::of(&top.bytes)?.media_type(&top.media_type)?;
    let descriptor = Descriptor {
        media_type,
        digest: digest.to_string(),
        size: top.bytes.len() as u64,
        // Which an image is for its configuration says, and that is looked at before its layers.
        platform: Some(Platform::default()),
        annotations: BTreeMap::new(),
    };
    let documents = Fetched {
        client: &client,
        left_bytes: Cell::new(MAX_DOCUMENTS_BYTES),
        known: RefCell::new(BTreeMap::from([(digest.to_string(), top.bytes)])),
        cancel: &cancel,
    };
    let index = Index {
        manifests: vec![descriptor],
    };
    let descriptor = oci::select(&documents, index, architecture, Several::First)?.descriptor;
    let bytes = documents.bytes(&descriptor)?;
    Shape::of(&bytes)?.expect_image()?;
    Ok(Chosen {
        digest: descriptor.digest.parse()?,
        manifest: oci::parse(&bytes, "the manifest")?,
        descriptor,
        bytes,
        client,
    })
}

/// What a document is, by the fields it has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<Config>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: Option<String>,
}

impl Shape {
    fn of(bytes: &[u8]) -> Result<Self> {
        oci::parse(bytes, "what the registry sends")
    }

    /// The type, by what is in it: the registry's word `said` counts only where the document says nothing else.
    fn media_type(&self, said: &str) -> Result<String> {
        if self.schema_version == Some(1) || self.fs_layers.is_some() {
            bail!(
                "it is an image of docker's schema 1, which is not taken: push it again with a docker or podman of today"
            );
        }
        let is_index = self.manifests.is_some();
        if is_index && (self.config.is_some() || self.layers.is_some()) {
            bail!("it is index and manifest at once, which nobody makes without harm in mind");
        }
        if !is_index {
            self.expect_image()?;
        }
        let typed = |media_type: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: String::new(),
            size: 0,
            platform: None,
            annotations: BTreeMap::new(),
        };
        let media_type = match &self.media_type {
            Some(media_type) => media_type.as_str(),
            None if said.contains("index.v1+json") || said.contains("manifest.") => said,
            None if is_index => OCI_INDEX,
            None => OCI_MANIFEST,
        };
        ensure!(
            oci::is_index(&typed(media_type)) == is_index,
            "it says that its type is {media_type:?}, and is not that"
        );
        Ok(media_type.to_owned())
    }

    /// Refuses what is no container image: charts, signatures, attestations, models.
    fn expect_image(&self) -> Result<()> {
        let Some(config) = &self.config else {
            bail!(
                "it is no container image but of type {:?}",
                self.media_type.as_deref().unwrap_or("unknown")
            );
        };
        let config_type = config.media_type.as_deref().unwrap_or_default();
        let is_image = oci::is_configuration(config_type);
        if !is_image || self.artifact_type.is_some() {
            let kind = self.artifact_type.as_deref().unwrap_or(config_type);
            bail!("it is no container image but an artefact of type {kind:?}");
        }
        Ok(())
    }
}

/// Documents of a registry, each asked for once.
struct Fetched<'a> {
    client: &'a Client,
    left_bytes: Cell<u64>,
    known: RefCell<BTreeMap<String, Vec<u8>>>,
    cancel: &'a Cancel,
}

impl Fetched<'_> {
    fn bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        if let Some(known) = self.known.borrow().get(&descriptor.digest) {
            return Ok(known.clone());
        }
        let digest: Digest = descriptor.digest.parse()?;
        let left = self.left_bytes.get().checked_sub(descriptor.size);
        self.left_bytes.set(left.with_context(|| {
            format!("it leads to more than {MAX_DOCUMENTS_BYTES} bytes of documents")
        })?);
        ensure!(
            descriptor.size <= MAX_JSON_BYTES,
            "document {digest} has {} bytes, more than {MAX_JSON_BYTES}",
            descriptor.size
        );
        let kind = match oci::is_configuration(&descriptor.media_type) {
            true => "blobs",
            false => "manifests",
        };
        let path = format!("{kind}/{digest}");
        let bytes = self
            .client
            .document(&path, ACCEPT, descriptor.size, self.cancel)
            .with_context(|| format!("ask for document {digest}"))?
            .bytes;
        let found = Digest::of(digest.algorithm(), &bytes);
        ensure!(
            bytes.len() as u64 == descriptor.size && found == digest,
            "wrong digest: the registry sends {found} for {digest}"
        );
        let mut known = self.known.borrow_mut();
        known.insert(descriptor.digest.clone(), bytes.clone());
        Ok(bytes)
    }
}

impl Documents for Fetched<'_> {
    fn object(&self) -> String {
        self.client.endpoint().reference.to_string()
    }

    fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        oci::parse(
            &self.bytes(descriptor)?,
            &format!("document {}", descriptor.digest),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str, said: &str) -> Result<String> {
        Shape::of(text.as_bytes())?.media_type(said)
    }

    const CONFIG: &str = r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json"}"#;

    #[test]
    fn document_is_known_by_what_is_in_it() {
        assert_eq!(
            typed(r#"{"manifests":[]}"#, "text/plain").unwrap(),
            OCI_INDEX
        );
        assert_eq!(
            typed(&format!("{{{CONFIG},\"layers\":[]}}"), "").unwrap(),
            OCI_MANIFEST
        );
        let list = "application/vnd.docker.distribution.manifest.list.v2+json";
        assert_eq!(typed(r#"{"manifests":[]}"#, list).unwrap(), list);
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let lie = format!(r#"{{"mediaType":"{OCI_INDEX}",{CONFIG}}}"#);
        let artefact = format!(r#"{{"artifactType":"application/x-model",{CONFIG}}}"#);
        for (text, reason) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            (r#"{"schemaVersion":2,"fsLayers":[]}"#, "schema 1"),
            (r#"{"manifests":[],"layers":[]}"#, "at once"),
            (
                r#"{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}"#,
                "helm",
            ),
            (&artefact, "x-model"),
            (r#"{"schemaVersion":2}"#, "no container image"),
            (&lie, "is not that"),
            ("[]", "not the document"),
        ] {
            let error = format!("{:#}", typed(text, "").unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

//! Images in the forms that others read: an OCI layout, an archive of one, an archive as `docker save` writes it, an ACI.
//!
//! Called by the store, on the caller's thread. Whatever an image was made of, it leaves as one layer.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result};
use contract::ImageManifest;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::{Builder, Header};

use super::configuration::{annotations, configuration, labels};
use super::files::Files;
use super::layer::Layer;
use super::parts::Parts;
use super::tar::{Form, append};
use crate::source::names::docker_reference;
use crate::store::Image;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes an OCI layout, its one image called `name`; gives the digest of the manifest. `spool` is an empty file.
///
/// # Errors
/// If the image is damaged, or something cannot be written.
pub fn oci(image: &Image, name: Option<&str>, spool: File, mut parts: Parts<'_>) -> Result<String> {
    let layer = Layer::compressed(&Files::of(image)?, spool)?;
    parts.add("oci-layout", LAYOUT.len() as u64, LAYOUT)?;
    parts.add(&layer.digest.blob_path(), layer.bytes, &layer.file)?;
    let configuration = configuration(image, &layer.diff_id, &labels(image))?;
    let configuration = serde_json::to_vec(&configuration)?;
    let digest = parts.add_blob(&configuration)?;
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIGURATION_TYPE, "digest": digest.to_string(), "size": configuration.len()},
        "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest.to_string(), "size": layer.bytes}],
    });
    let annotations = annotations(image);
    if !annotations.is_empty() {
        manifest["annotations"] = json!(annotations);
    }
    let manifest = serde_json::to_vec(&manifest)?;
    let digest = parts.add_blob(&manifest)?.to_string();
    let mut descriptor =
        json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": manifest.len()});
    if let Some(name) = name {
        descriptor["annotations"] = json!({REF_NAME: name});
    }
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string();
    parts.add("index.json", index.len() as u64, index.as_bytes())?;
    parts.finish()?;
    Ok(digest)
}

/// Writes an archive as `docker save` does, with those of the image's names that docker takes.
///
/// # Errors
/// As for [`oci`].
pub fn docker(image: &Image, name: Option<&str>, spool: File, mut parts: Parts<'_>) -> Result<()> {
    let layer = Layer::plain(&Files::of(image)?, spool)?;
    let file = format!("{}.tar", layer.digest.hex());
    parts.add(&file, layer.bytes, &layer.file)?;
    // Such an archive has no annotations.
    let mut labels = labels(image);
    for (name, value) in annotations(image) {
        labels.entry(name).or_insert(value);
    }
    let configuration = configuration(image, &layer.diff_id, &labels)?;
    let configuration = serde_json::to_vec(&configuration)?;
    let digest = crate::digest::Digest::of(crate::digest::Algorithm::Sha256, &configuration);
    let config = format!("{}.json", digest.hex());
    parts.add(
        &config,
        configuration.len() as u64,
        configuration.as_slice(),
    )?;
    let tags: Vec<_> = name.and_then(docker_reference).into_iter().collect();
    let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": [file]}]).to_string();
    parts.add("manifest.json", manifest.len() as u64, manifest.as_bytes())?;
    parts.finish()
}

/// Writes an App Container Image, compressed by gzip.
///
/// # Errors
/// As for [`oci`].
pub fn aci(image: &Image, to: impl Write) -> Result<()> {
    let files = Files::of(image)?;
    write_aci(&image.manifest, to, |aci| {
        append(&files, Form::Aci, aci)?.tell();
        Ok(())
    })
}

/// Writes an App Container Image, compressed by gzip, whose files, all of them, are put below `rootfs` by `fill`.
///
/// # Errors
/// If it cannot be written; and those of `fill`.
pub fn write_aci<W: Write>(
    manifest: &ImageManifest,
    to: W,
    fill: impl FnOnce(&mut Builder<GzEncoder<W>>) -> Result<()>,
) -> Result<()> {
    // What the image was put together from is not needed any more.
    let manifest = serde_json::to_vec(&ImageManifest {
        dependencies: Vec::new(),
        path_whitelist: Vec::new(),
        ..manifest.clone()
    })?;
    let mut aci = Builder::new(GzEncoder::new(to, Compression::fast()));
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(manifest.len() as u64);
    aci.append_data(&mut header, "manifest", manifest.as_slice())
        .context("write the manifest")?;
    fill(&mut aci)?;
    let ended = aci.into_inner().and_then(GzEncoder::finish);
    ended
        .and_then(|mut to| to.flush())
        .context("end the archive")
}

//! Archives by an author who means harm and knows the formats: every digest is right, what it vouches for is not.

use std::io::Write;
use std::os::fd::AsRawFd;

use hostile::{Fault, JsonFault, damage, damage_json, faults, json_faults};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::digest::{Algorithm, Digest};
use crate::{Limits, Writer};

/// What is wrong with an archive.
#[derive(Clone, Debug)]
struct Harm {
    index: Vec<JsonFault>,
    manifest: Vec<JsonFault>,
    configuration: Vec<JsonFault>,
    layer: Vec<Fault>,
    /// After all digests have been made.
    archive: Vec<Fault>,
}

fn harm() -> impl Strategy<Value = Harm> {
    let none = || Just(Vec::new());
    let documents = (
        prop_oneof![2 => none(), 1 => json_faults(2)],
        prop_oneof![2 => none(), 1 => json_faults(2)],
        prop_oneof![2 => none(), 1 => json_faults(2)],
    );
    let bytes = (
        prop_oneof![2 => Just(Vec::new()), 1 => faults(2)],
        prop_oneof![2 => Just(Vec::new()), 1 => faults(3)],
    );
    (documents, bytes).prop_map(
        |((index, manifest, configuration), (layer, archive))| Harm {
            index,
            manifest,
            configuration,
            layer,
            archive,
        },
    )
}

impl Harm {
    fn is_none(&self) -> bool {
        let documents = [&self.index, &self.manifest, &self.configuration];
        documents.into_iter().all(Vec::is_empty) && self.layer.is_empty() && self.archive.is_empty()
    }
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn harmed(mut document: Value, faults: &[JsonFault]) -> Vec<u8> {
    damage_json(&mut document, faults);
    serde_json::to_vec(&document).unwrap()
}

fn configuration(layer: &[u8], harm: &Harm) -> Vec<u8> {
    let document = json!({
        "os": "linux", "architecture": "amd64", "created": "2020-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(Algorithm::Sha256, layer).to_string()]},
        "config": {"Entrypoint": ["/bin/sh"], "Cmd": ["-c"], "Env": ["A=b"], "User": "1:2", "Volumes": {"/v": {}},
            "ExposedPorts": {"80/tcp": {}}, "Labels": {"a.b": "c"}}
    });
    harmed(document, &harm.configuration)
}

/// An OCI layout whose image lies in an index within the index.
fn layout(layer: &[u8], harm: &Harm) -> Vec<u8> {
    let mut files = vec![(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut blob = |kind: &str, bytes: Vec<u8>| {
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let descriptor = json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest.to_string(), "size": bytes.len()});
        files.push((digest.blob_path(), bytes));
        descriptor
    };
    let configuration = blob("config.v1+json", configuration(layer, harm));
    let layer = blob("layer.v1.tar+gzip", gzip(layer));
    let manifest = json!({"schemaVersion": 2, "config": configuration, "layers": [layer], "annotations": {"d.e": "f"}});
    let mut image = blob("manifest.v1+json", harmed(manifest, &harm.manifest));
    image["platform"] = json!({"os": "linux", "architecture": "amd64"});
    image["annotations"] = json!({"org.opencontainers.image.ref.name": "example.com/tool:1"});
    let inner = blob(
        "index.v1+json",
        harmed(json!({"manifests": [image]}), &harm.index),
    );
    let index = json!({"schemaVersion": 2, "manifests": [inner]});
    files.push((layout::INDEX.to_owned(), index.to_string().into_bytes()));
    tar(&files)
}

fn saved(layer: &[u8], harm: &Harm) -> Vec<u8> {
    let configuration = configuration(layer, harm);
    let digest = Digest::of(Algorithm::Sha256, &configuration);
    let name = format!("{}.json", digest.hex());
    let manifest = json!([{"Config": name, "RepoTags": ["tool:1"], "Layers": ["a/layer.tar"]}]);
    tar(&[
        (
            docker::MANIFEST.to_owned(),
            harmed(manifest, &harm.manifest),
        ),
        (name, configuration),
        ("a/layer.tar".to_owned(), layer.to_vec()),
    ])
}

fn aci(harm: &Harm) -> Vec<u8> {
    let manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/aci",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
        "app": {"exec": ["/bin/sh"], "user": "0", "group": "0"}});
    tar(&[
        ("manifest".to_owned(), harmed(manifest, &harm.manifest)),
        ("rootfs/bin/sh".to_owned(), vec![7; 700]),
    ])
}

/// Opens the image in `bytes` and merges it; the manifest that comes of it.
fn import(bytes: &[u8]) -> Result<contract::ImageManifest> {
    let file = tempfile::tempfile()?;
    (&file).write_all(bytes)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let wanted = Wanted {
        barred: &[],
        architecture: "amd64",
        name: None,
        stem: "x",
    };
    let limits = Limits {
        image_bytes: 4 << 20,
        input_bytes: 4 << 20,
        ..Limits::default()
    };
    let source = open(&path, &wanted, || Ok(tempfile::tempfile()?), 4 << 20)?;
    let mut writer = Writer::new(tempfile::tempfile()?, tempfile::tempfile()?, limits)?;
    let meter = Meter::new(&|_| {});
    let manifest = match source {
        Source::Layers(layers) => {
            for layer in &layers.layers {
                layer.write(&mut writer, &meter)?;
            }
            layers.manifest
        }
        Source::Tarball(tarball) => tarball.write(&mut writer, &wanted, &meter)?.manifest,
        Source::Folder(_) => bail!("a file is no folder"),
    };
    writer.finish()?;
    Ok(manifest)
}

proptest! {
    #[test]
    fn image_with_faults_behind_right_digests_is_refused_or_whole(
        harm in harm(), form in 0usize..3, compressed in any::<bool>()
    ) {
        let mut layer = tar(&[("bin/sh".to_owned(), vec![7; 700]), (".wh.gone".to_owned(), Vec::new())]);
        damage(&mut layer, &harm.layer);
        let mut bytes = match form {
            0 => layout(&layer, &harm),
            1 => saved(&layer, &harm),
            _ => aci(&harm),
        };
        if compressed {
            bytes = gzip(&bytes);
        }
        damage(&mut bytes, &harm.archive);
        match import(&bytes) {
            Ok(manifest) => {
                let text = serde_json::to_vec(&manifest).unwrap();
                prop_assert_eq!(serde_json::from_slice::<contract::ImageManifest>(&text).unwrap(), manifest);
            }
            Err(error) => prop_assert!(!harm.is_none(), "{:#}", error),
        }
    }
}

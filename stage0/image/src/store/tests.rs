//! The store driven as `fairing` drives it, with images made by hand in every format.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::digest::{Algorithm, Digest};

type Compressor = fn(&[u8]) -> Vec<u8>;

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Incompressible, so that truncation of a compressed form meets every part of it.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}

fn layer_tars() -> Vec<Vec<u8>> {
    vec![
        tar(&[("bin/sh", &noise(20_000)), ("etc/old", b"old")]),
        tar(&[("etc/.wh.old", b""), ("etc/new", b"new")]),
    ]
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Digest::of(Algorithm::Sha256, bytes).to_string()
}

/// The files of an OCI layout or of another archive, by name.
#[derive(Clone, Default)]
pub(super) struct Parts(pub(super) Vec<(String, Vec<u8>)>);

impl Parts {
    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.0
            .push((format!("blobs/{}", digest.replace(':', "/")), bytes));
        descriptor
    }

    fn image(&mut self, architecture: &str, compress: Compressor) -> Value {
        self.image_of(&layer_tars(), architecture, compress)
    }

    fn image_of(&mut self, tars: &[Vec<u8>], architecture: &str, compress: Compressor) -> Value {
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            configuration(architecture, tars),
        );
        let layers: Vec<_> = tars
            .iter()
            .map(|tar| self.blob("application/vnd.oci.image.layer.v1.tar", compress(tar)))
            .collect();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        self.blob(MANIFEST_TYPE, manifest.to_string().into_bytes())
    }

    fn index(mut self, manifests: &[Value]) -> Self {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.0.push((
            "oci-layout".into(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ));
        self.0
            .push(("index.json".into(), index.to_string().into_bytes()));
        self
    }

    fn folder(&self, path: &Path) -> PathBuf {
        for (name, content) in &self.0 {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        path.to_path_buf()
    }

    fn tar(&self) -> Vec<u8> {
        let files: Vec<_> = self
            .0
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        tar(&files)
    }

    fn blob_mut(&mut self, at: usize) -> &mut Vec<u8> {
        let blobs = self
            .0
            .iter_mut()
            .filter(|(name, _)| name.starts_with("blobs/"));
        &mut blobs.into_iter().nth(at).unwrap().1
    }
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

fn configuration(architecture: &str, tars: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = tars.iter().map(|tar| sha256(tar)).collect();
    json!({
        "os": "linux", "architecture": architecture,
        "config": {"Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    })
    .to_string()
    .into_bytes()
}

fn layout(compress: Compressor) -> Parts {
    let mut parts = Parts::default();
    let mut descriptor = parts.image("amd64", compress);
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "example.com/tool:1"});
    parts.index(&[descriptor])
}

/// A layout of an image of these layers.
pub(super) fn layout_of(tars: &[Vec<u8>]) -> Parts {
    let mut parts = Parts::default();
    let descriptor = parts.image_of(tars, "amd64", gzip);
    parts.index(&[descriptor])
}

fn docker_archive() -> Parts {
    let tars = layer_tars();
    let config = configuration("amd64", &tars);
    let config_name = format!("{}.json", &sha256(&config)[7..]);
    let names = [
        "a1".repeat(32) + "/layer.tar",
        "b2".repeat(32) + "/layer.tar",
    ];
    let manifest = json!([{"Config": config_name, "RepoTags": ["tool:saved"], "Layers": names}]);
    let mut parts = Parts::default();
    parts.0.extend(names.into_iter().zip(tars));
    parts.0.push((config_name, config));
    parts
        .0
        .push(("manifest.json".into(), manifest.to_string().into_bytes()));
    parts
}

fn aci() -> Vec<u8> {
    let manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/aci",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}, {"name": "version", "value": "3"}],
        "app": {"exec": ["/bin/sh"], "user": "0", "group": "0"}
    });
    tar(&[
        ("manifest", manifest.to_string().as_bytes()),
        ("rootfs/bin/sh", &noise(5000)),
    ])
}

pub(super) struct Bench {
    folder: tempfile::TempDir,
    pub(super) store: Store,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn folder(&self, name: &str, parts: &Parts) -> PathBuf {
        parts.folder(&self.folder.path().join(name))
    }

    pub(super) fn import(&self, path: &Path) -> Result<Image> {
        let options = ImportOptions {
            architecture: "amd64".into(),
            ..ImportOptions::default()
        };
        self.store.import(path, &options, &|_| {})
    }

    pub(super) fn refused(&self, path: &Path) -> String {
        let before = self.state();
        let error = format!("{:#}", self.import(path).unwrap_err());
        assert_eq!(self.state(), before, "{error}");
        error
    }

    /// Everything in the store, by path.
    pub(super) fn state(&self) -> Vec<PathBuf> {
        fn walk(path: &Path, into: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                into.push(path.clone());
                if path.is_dir() {
                    walk(&path, into);
                }
            }
        }
        let mut paths = Vec::new();
        walk(self.store.place.dir(), &mut paths);
        paths.sort();
        paths
    }
}

#[test]
fn layout_is_one_image_in_every_form_and_compression() {
    let bench = Bench::new();
    let mut images = Vec::new();
    for (name, compress) in [
        ("plain", plain as Compressor),
        ("gzip", gzip),
        ("zstd", zstd),
    ] {
        let parts = layout(compress);
        images.push(bench.import(&bench.folder(name, &parts)).unwrap());
        let archive = parts.tar();
        images.push(
            bench
                .import(&bench.write(&format!("{name}.tar"), &archive))
                .unwrap(),
        );
        images.push(
            bench
                .import(&bench.write(&format!("{name}.tar.x"), &gzip(&archive)))
                .unwrap(),
        );
    }
    assert!(images.iter().all(|image| image.id == images[0].id));
    assert_eq!(bench.store.list().unwrap().len(), 1);
    let image = &images[0];
    assert_eq!(image.names, ["example.com/tool:1"]);
    assert_eq!(image.kind, Kind::Oci);
    assert_eq!(image.entrypoint().unwrap().unwrap(), ["/bin/sh"]);
    assert_eq!(image.cmd().unwrap().unwrap(), ["-c", "true"]);
    let bytes: usize = image
        .files()
        .iter()
        .map(|file| fs::read(file).unwrap().len())
        .sum();
    assert_eq!(bytes as u64, image.rootfs_bytes);
}

#[test]
fn image_is_found_by_name_id_prefix_and_digest() {
    let bench = Bench::new();
    let image = bench
        .import(&bench.folder("layout", &layout(gzip)))
        .unwrap();
    let digest = image.digest.clone().unwrap();
    for reference in [
        "example.com/tool:1",
        &image.id,
        &image.id[..12],
        &image.id[7..20],
        &digest,
    ] {
        let found = bench.store.find(reference).unwrap();
        assert_eq!(found.unwrap().id, image.id, "{reference}");
    }
    assert!(bench.store.find("example.com/tool:2").unwrap().is_none());
    let other = image.id.replace(&image.id[130..], "00000");
    let place = &bench.store.place;
    fs::create_dir(place.image(&other)).unwrap();
    let error = bench.store.find(&image.id[..12]).unwrap_err().to_string();
    assert!(
        error.contains(&image.id) && error.contains(&other),
        "{error}"
    );
}

#[test]
fn removed_image_is_gone_and_comes_back() {
    let bench = Bench::new();
    let path = bench.folder("layout", &layout(gzip));
    let before = bench.state();
    let image = bench.import(&path).unwrap();
    let id = image.id.clone();
    assert!(bench.store.remove_unless(image, |_| Ok(false)).unwrap());
    assert_eq!(bench.state(), before);
    assert_eq!(bench.import(&path).unwrap().id, id);
}

#[test]
fn image_in_use_stays_and_is_removed_when_nobody_has_it() {
    let bench = Bench::new();
    let path = bench.folder("layout", &layout(gzip));
    let used = bench.import(&path).unwrap();
    let found = |reference| bench.store.find(reference).unwrap().unwrap();
    let removed = |image: Image| bench.store.remove_unless(image, |_| Ok(false)).unwrap();
    let id = used.id.clone();
    assert!(!removed(found(&id)));
    drop(used);
    assert!(!bench.store.remove_unless(found(&id), |_| Ok(true)).unwrap());
    // Who comes while reasons are looked for waits, and finds none.
    let store = bench.store.clone();
    let reference = id.clone();
    let (mut late, listed) = (None, bench.store.list().unwrap().remove(0));
    let gone = bench.store.remove_unless(listed, |_| {
        late = Some(std::thread::spawn(move || {
            store.find(&reference).unwrap().is_none()
        }));
        Ok(false)
    });
    assert!(gone.unwrap() && late.unwrap().join().unwrap());
}

#[test]
fn image_is_verified_against_what_its_import_recorded() {
    let bench = Bench::new();
    let image = bench
        .import(&bench.folder("layout", &layout(gzip)))
        .unwrap();
    bench.store.verify(&image).unwrap();
    let record = bench.store.place.image(&image.id).join("record.json");
    let mut old: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("rootfs").unwrap();
    fs::write(&record, old.to_string()).unwrap();
    let image = bench.store.find(&image.id).unwrap().unwrap();
    let error = bench.store.verify(&image).unwrap_err().to_string();
    assert!(error.contains("recorded no digest"), "{error}");
}

#[test]
fn docker_archive_is_the_same_image_as_its_layout() {
    let bench = Bench::new();
    let saved = bench
        .import(&bench.write("saved", &docker_archive().tar()))
        .unwrap();
    assert_eq!(saved.names, ["tool:saved"]);
    let image = bench
        .import(&bench.folder("layout", &layout(zstd)))
        .unwrap();
    assert_eq!(image.id, saved.id);
    assert_eq!(image.names, ["example.com/tool:1", "tool:saved"]);
}

#[test]
fn archive_that_calls_itself_another_images_digest_is_not_found_by_that() {
    let bench = Bench::new();
    let digest = format!("sha256:{}", "ab".repeat(32));
    for (number, name) in [digest.clone(), format!("h.org/app@{digest}")]
        .iter()
        .enumerate()
    {
        let mut parts = docker_archive();
        let (_, manifest) = parts.0.last_mut().unwrap();
        let text = String::from_utf8(manifest.clone()).unwrap();
        *manifest = text.replace("tool:saved", name).into_bytes();
        let image = bench
            .import(&bench.write(&format!("{number}"), &parts.tar()))
            .unwrap();
        assert_eq!(image.names, [""; 0]);
        assert!(bench.store.find(name).unwrap().is_none());
    }
    let manifest = json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "h.org/app",
        "labels": [{"name": "version", "value": format!("1@{digest}")}]
    });
    let aci = tar(&[
        ("manifest", manifest.to_string().as_bytes()),
        ("rootfs/x", b"x"),
    ]);
    let image = bench.import(&bench.write("aci", &aci)).unwrap();
    assert_eq!(image.names, [""; 0]);
    let image = bench.store.list().unwrap().remove(0);
    assert!(bench.store.tag(&image, &[digest]).is_err());
}

#[test]
fn aci_has_the_digest_of_its_tar_however_compressed() {
    let bench = Bench::new();
    let bytes = aci();
    let id = format!("sha512-{}", Digest::of(Algorithm::Sha512, &bytes).hex());
    for compress in [plain as Compressor, gzip, bzip2, xz] {
        let image = bench
            .import(&bench.write("image", &compress(&bytes)))
            .unwrap();
        assert_eq!((image.id.as_str(), image.kind), (id.as_str(), Kind::Aci));
        assert_eq!(image.names, ["example.com/aci:3"]);
    }
}

#[test]
fn root_file_system_gets_a_shell() {
    let bench = Bench::new();
    let bytes = tar(&[("bin/sh", b"#!"), (".wh.kept", b"")]);
    let image = bench
        .import(&bench.write("tiny.tar.gz", &gzip(&bytes)))
        .unwrap();
    assert_eq!(image.kind, Kind::RootFs);
    assert_eq!(image.manifest.app.unwrap().exec, ["/bin/sh"]);
    assert_eq!(image.names, ["tiny"]);
}

#[test]
fn folder_is_one_image_until_it_changes() {
    let bench = Bench::new();
    let root = bench.folder.path().join("root.d");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/sh"), "#!").unwrap();
    let first = bench.import(&root).unwrap();
    assert_eq!(
        (first.kind, first.names.as_slice()),
        (Kind::RootFs, &["root.d".to_owned()][..])
    );
    assert_eq!(bench.import(&root).unwrap().id, first.id);
    fs::write(root.join("bin/sh"), "#?").unwrap();
    assert_ne!(bench.import(&root).unwrap().id, first.id);
    assert_eq!(bench.store.list().unwrap().len(), 2);
}

#[test]
fn index_with_many_architectures_gives_the_hosts() {
    let bench = Bench::new();
    let mut parts = Parts::default();
    let mut inner: Vec<_> = ["arm64", "amd64", "s390x"]
        .iter()
        .map(|architecture| {
            let mut descriptor = parts.image(architecture, gzip);
            descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
            descriptor
        })
        .collect();
    let nested = json!({"schemaVersion": 2, "manifests": inner});
    let mut descriptor = parts.blob(INDEX_TYPE, nested.to_string().into_bytes());
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": "multi"});
    let image = bench
        .import(&bench.folder("multi", &parts.clone().index(&[descriptor])))
        .unwrap();
    assert_eq!(image.names, ["multi"]);
    assert_eq!(image.manifest.labels[1].value, "amd64");
    inner.remove(1);
    let error = bench.refused(&bench.folder("foreign", &parts.index(&inner)));
    assert!(error.contains("linux/arm64, linux/s390x"), "{error}");
}

#[test]
fn artifact_beside_an_image_is_not_one() {
    let bench = Bench::new();
    let mut parts = Parts::default();
    let image = parts.image("amd64", gzip);
    let config = parts.blob("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let signature = json!({"schemaVersion": 2, "config": config, "layers": []});
    let signature = parts.blob(MANIFEST_TYPE, signature.to_string().into_bytes());
    let path = bench.folder("signed", &parts.clone().index(&[signature.clone(), image]));
    assert_eq!(bench.import(&path).unwrap().names, ["signed"]);
    let error = bench.refused(&bench.folder("alone", &parts.index(&[signature])));
    assert!(error.contains("holds no image"), "{error}");
}

#[test]
fn layout_with_several_images_wants_a_name() {
    let bench = Bench::new();
    let mut parts = Parts::default();
    let mut one = parts.image("amd64", gzip);
    one["annotations"] = json!({"org.opencontainers.image.ref.name": "one:1"});
    let mut two = parts.image("amd64", zstd);
    two["annotations"] = json!({"org.opencontainers.image.ref.name": "two:1"});
    let path = bench.folder("several", &parts.index(&[one, two]));
    let error = bench.refused(&path);
    assert!(
        error.contains("one:1, two:1") && error.contains("--name"),
        "{error}"
    );
    let options = ImportOptions {
        name: Some("two:1".into()),
        architecture: "amd64".into(),
        ..ImportOptions::default()
    };
    assert_eq!(
        bench.store.import(&path, &options, &|_| {}).unwrap().names,
        ["two:1"]
    );
}

#[test]
fn index_that_lists_another_over_and_over_is_refused() {
    let bench = Bench::new();
    let mut parts = Parts::default();
    let mut inner = parts.image("amd64", gzip);
    for _ in 0..2 {
        let index = json!({"schemaVersion": 2, "manifests": vec![inner; 40]});
        inner = parts.blob(INDEX_TYPE, index.to_string().into_bytes());
    }
    let error = bench.refused(&bench.folder("loop", &parts.index(&[inner])));
    assert!(error.contains("manifests and indexes"), "{error}");
}

#[test]
fn index_with_a_very_long_name_is_refused() {
    let bench = Bench::new();
    let mut parts = Parts::default();
    let mut image = parts.image("amd64", gzip);
    let name = "n".repeat(2000);
    image["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let error = bench.refused(&bench.folder("long", &parts.index(&[image])));
    assert!(error.contains("a name of more than"), "{error}");
}

#[test]
fn altered_blob_is_named() {
    let bench = Bench::new();
    // Configuration, two layers, manifest.
    for at in 0..4 {
        let mut parts = layout(plain);
        let name = parts.0[at].0.clone();
        let blob = parts.blob_mut(at);
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
        let error = bench.refused(&bench.folder(&format!("altered-{at}"), &parts));
        assert!(
            error.contains("wrong digest") && error.contains(&name),
            "{error}"
        );
    }
}

#[test]
fn layer_that_is_not_its_diff_id_is_refused() {
    let bench = Bench::new();
    let mut parts = docker_archive();
    parts.0[0].1 = tar(&[("bin/sh", b"other")]);
    let error = bench.refused(&bench.write("saved", &parts.tar()));
    assert!(
        error.contains("wrong digest") && error.contains("layer.tar"),
        "{error}"
    );
}

#[test]
fn archive_cut_in_a_layer_says_so() {
    let bench = Bench::new();
    let bytes = docker_archive().tar();
    let error = bench.refused(&bench.write("saved", &bytes[..10_000]));
    assert!(error.contains("saved is truncated"), "{error}");
}

#[test]
fn image_beyond_the_limit_is_refused() {
    let bench = Bench::new();
    let path = bench.folder("layout", &layout(gzip));
    let options = ImportOptions {
        max_image_bytes: 16 << 10,
        architecture: "amd64".into(),
        ..ImportOptions::default()
    };
    let before = bench.state();
    assert!(bench.store.import(&path, &options, &|_| {}).is_err());
    assert_eq!(bench.state(), before);
}

#[test]
fn store_of_another_version_is_refused() {
    let bench = Bench::new();
    fs::write(bench.store.place.version(), "9\n").unwrap();
    let error = Store::open(bench.store.place.dir())
        .unwrap_err()
        .to_string();
    assert!(error.contains("version \"9\""), "{error}");
}

#[test]
fn eight_imports_at_once_make_one_image() {
    let bench = Bench::new();
    let path = bench.folder("layout", &layout(gzip));
    let aci = bench.write("aci", &aci());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (bench, path) = (&bench, if number % 2 == 0 { &path } else { &aci });
            scope.spawn(move || bench.import(path).unwrap());
        }
    });
    assert_eq!(bench.store.list().unwrap().len(), 2);
    assert_eq!(fs::read_dir(bench.store.place.tmp()).unwrap().count(), 0);
}

#[test]
fn damaged_image_is_made_anew_by_an_import() {
    let bench = Bench::new();
    let paths = [
        bench.folder("layout", &layout(gzip)),
        bench.write("aci", &aci()),
    ];
    for path in &paths {
        let image = bench.import(path).unwrap();
        fs::remove_file(&image.rootfs).unwrap();
        let error = bench.store.find(&image.id).unwrap_err().to_string();
        assert!(error.contains("import it again"), "{error}");
        assert!(bench.import(path).unwrap().rootfs.is_file());
    }
}

#[test]
fn tar_that_has_not_changed_is_not_read_again() {
    let bench = Bench::new();
    let path = bench.write("aci", &aci());
    let key = |age: u64| {
        let modified = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        known::Key::new(&bench.store.place, &file.metadata().unwrap(), "amd64")
    };
    let image = bench.import(&path).unwrap();
    let (one, two) = (key(10), key(20));
    one.remember(&one, &bench.store.place, &image.id).unwrap();
    assert_eq!(
        one.id().unwrap(),
        None,
        "a file changed just now is not to be trusted"
    );
    assert_eq!(two.id().unwrap(), None);
    names::write_id(&bench.store.place, one.file(), &image.id).unwrap();
    assert_eq!(one.id().unwrap(), Some(image.id.clone()));
    assert!(bench.store.remove_unless(image, |_| Ok(false)).unwrap());
    assert_eq!(one.id().unwrap(), None);
}

#[test]
fn progress_ends_with_writing() {
    let bench = Bench::new();
    let path = bench.folder("layout", &layout(gzip));
    let steps = std::cell::RefCell::new(Vec::new());
    let options = ImportOptions {
        architecture: "amd64".into(),
        ..ImportOptions::default()
    };
    bench
        .store
        .import(&path, &options, &|step| steps.borrow_mut().push(step))
        .unwrap();
    let steps = steps.into_inner();
    assert!(matches!(
        steps[0],
        Progress::Layer {
            index: 1,
            of: 2,
            bytes_done: 0,
            ..
        }
    ));
    assert_eq!(steps.last(), Some(&Progress::Writing));
}

#[test]
fn form_cut_at_every_thousandth_byte_is_refused() {
    let bench = Bench::new();
    let forms = [
        layout(gzip).tar(),
        gzip(&layout(zstd).tar()),
        docker_archive().tar(),
        aci(),
        xz(&aci()),
        gzip(&aci()),
        zstd(&tar(&[("bin/sh", &noise(9000))])),
    ];
    for (number, bytes) in forms.iter().enumerate() {
        for end in (0..bytes.len() - 1024).step_by(1000) {
            let path = bench.write("cut", &bytes[..end]);
            let error = bench.refused(&path);
            assert!(error.contains("cut"), "form {number} at {end}: {error}");
        }
    }
}

proptest! {
    #[test]
    fn damaged_archive_never_panics_nor_leaves_a_trace(
        form in 0usize..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let bench = Bench::new();
        let mut bytes = match form {
            0 => layout(gzip).tar(),
            1 => docker_archive().tar(),
            2 => aci(),
            _ => xz(&aci()),
        };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(3) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let before = bench.state();
        if bench.import(&bench.write("damaged", &bytes)).is_err() {
            prop_assert_eq!(bench.state(), before);
        }
    }
}

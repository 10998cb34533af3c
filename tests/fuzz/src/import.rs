//! An image file in the hands of the store. Input: a byte that says how to take the rest: as the file itself, or as two
//! documents, parted by a zero byte, from which an archive of `docker save` is made.

use image::{ImportOptions, Store};
use tar::EntryType;

use crate::layers::{sum_headers, tar};

const DOCUMENTS: u8 = 1;

/// Imports the image.
pub fn run(input: &[u8]) {
    import(input);
}

fn import(input: &[u8]) -> Option<image::Image> {
    let (form, rest) = input.split_first()?;
    let bytes = match form % 2 {
        DOCUMENTS => saved(rest),
        _ => {
            let mut bytes = rest.to_vec();
            sum_headers(&mut bytes);
            bytes
        }
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("image");
    std::fs::write(&file, bytes).expect("room for the image");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let options = ImportOptions {
        max_image_bytes: 1 << 20,
        architecture: "amd64".into(),
        ..ImportOptions::default()
    };
    let image = store.import(&file, &options, &|_| {}).ok()?;
    let found = store.find(&image.id).expect("a readable store");
    assert_eq!(found.map(|found| found.id), Some(image.id.clone()));
    Some(image)
}

/// An archive around the two documents in `input`; its one layer is empty.
fn saved(input: &[u8]) -> Vec<u8> {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (manifest, config) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    tar(&[
        ("manifest.json", EntryType::Regular, manifest),
        ("config.json", EntryType::Regular, config),
        ("layer.tar", EntryType::Regular, &[0; 1024]),
    ])
}

/// SHA-256 of 1,024 zeros.
const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// A saved image, its documents alone, an ACI, and a root file system.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["tool:1"], "Layers": ["layer.tar"]}]);
    let config = serde_json::json!({"os": "linux", "architecture": "amd64", "created": "2020-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [EMPTY_LAYER]},
        "config": {"User": "a:b", "Env": ["A=1"], "Entrypoint": ["/e"], "Cmd": ["c"], "WorkingDir": "/w",
            "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"a.b": "c"}, "StopSignal": "SIGQUIT"}});
    let documents = format!("{manifest}\0{config}").into_bytes();
    let aci = serde_json::json!({"acVersion": "0.8.11", "acKind": "ImageManifest", "name": "example.com/app",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
        "app": {"exec": ["/bin/sh"], "user": "0", "group": "0"}});
    let aci = tar(&[
        ("manifest", EntryType::Regular, aci.to_string().as_bytes()),
        ("rootfs/bin/sh", EntryType::Regular, b"#!"),
    ]);
    let bare = tar(&[
        ("bin/sh", EntryType::Regular, b"#!"),
        ("lib", EntryType::Symlink, b"usr/lib"),
    ]);
    let whole = |bytes: Vec<u8>| [vec![0], bytes].concat();
    vec![
        [vec![DOCUMENTS], documents.clone()].concat(),
        whole(saved(&documents)),
        whole(aci),
        whole(bare),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_imported() {
        for (number, seed) in super::seeds().iter().enumerate() {
            assert!(super::import(seed).is_some(), "seed {number}");
        }
    }
}

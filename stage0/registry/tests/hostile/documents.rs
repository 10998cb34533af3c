//! Manifests and indexes that are lies, bombs, or no images.

use serde_json::{Value, json};

use crate::double::{Answer, Body, Double};
use crate::image::{Host, INDEX_TYPE, MANIFEST_TYPE, Served, descriptor, layer};

fn image() -> Served {
    Served::new(&[layer(1, 100)])
}

fn double(served: Served) -> Double {
    Double::new(move |request| served.answer(request))
}

/// An index of the tag's manifest, described so, besides other entries.
fn indexed(served: Served, platform: &Value, others: &[Value]) -> Served {
    let mut entry = descriptor(MANIFEST_TYPE, &served.top);
    entry["platform"] = platform.clone();
    let manifests: Vec<_> = others.iter().cloned().chain([entry]).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
    nested(served, &index)
}

/// `top` as what the tag means, with the tag's document below it.
fn nested(mut served: Served, top: &Value) -> Served {
    let below = std::mem::replace(&mut served.top, top.to_string().into_bytes());
    served.manifests.insert(crate::image::digest(&below), below);
    served
}

fn amd64() -> Value {
    json!({"os": "linux", "architecture": "amd64"})
}

#[test]
fn index_leads_to_the_image_for_this_host() {
    let mut other = descriptor(MANIFEST_TYPE, b"{}");
    other["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let host = Host::new();
    let one = double(indexed(image(), &amd64(), &[other.clone()]));
    host.pull(&one).expect("a pull through an index");
    let two = indexed(image(), &amd64(), &[other]);
    let outer = json!({"manifests": [descriptor(INDEX_TYPE, &two.top)]});
    host.pull(&double(nested(two, &outer)))
        .expect("a pull through two indexes");
}

#[test]
fn index_without_this_hosts_image_says_what_it_has() {
    let arm = json!({"os": "linux", "architecture": "arm64"});
    let error = Host::new().refused(&double(indexed(image(), &arm, &[])));
    assert!(
        error.contains("linux/arm64") && error.contains("linux/amd64"),
        "{error}"
    );
}

#[test]
fn image_that_is_for_another_host_than_its_index_says_is_refused_before_its_layers() {
    let mut served = image();
    let config = json!({"os": "linux", "architecture": "s390x", "rootfs": {"diff_ids": []}});
    let config = config.to_string().into_bytes();
    served
        .blobs
        .insert(crate::image::digest(&config), config.clone());
    let served = served.changed(|manifest| {
        manifest["config"]["digest"] = crate::image::digest(&config).into();
        manifest["config"]["size"] = config.len().into();
    });
    let double = double(indexed(served, &amd64(), &[]));
    let error = Host::new().refused(&double);
    assert!(error.contains("linux/s390x"), "{error}");
    assert_eq!(double.count(&crate::image::digest(&layer(1, 100))), 0);
}

#[test]
fn index_that_is_deep_wide_or_heavy_is_refused() {
    let mut deep = indexed(image(), &amd64(), &[]);
    for _ in 0..10 {
        let outer = json!({"manifests": [descriptor(INDEX_TYPE, &deep.top)]});
        deep = nested(deep, &outer);
    }
    let error = Host::new().refused(&double(deep));
    assert!(error.contains("nests indexes deeper"), "{error}");

    let mut other = descriptor(MANIFEST_TYPE, b"{}");
    other["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let wide = indexed(image(), &amd64(), &vec![other; 5000]);
    let error = Host::new().refused(&double(wide));
    assert!(error.contains("more than 1024"), "{error}");

    // Manifests that must be looked at, each as large as one may be.
    let mut heavy = image();
    let entries: Vec<_> = (0..20)
        .map(|index| {
            let text = format!("{{\"x\":\"{}\"}}", "x".repeat((4 << 20) - 20 - index));
            let entry = descriptor(INDEX_TYPE, text.as_bytes());
            let digest = entry["digest"].as_str().expect("a digest").to_owned();
            heavy.manifests.insert(digest, text.into_bytes());
            entry
        })
        .collect();
    let heavy = indexed(heavy, &amd64(), &entries);
    let error = Host::new().refused(&double(heavy));
    assert!(error.contains("33554432 bytes of documents"), "{error}");
}

#[test]
fn document_of_another_digest_or_size_is_refused() {
    let served = indexed(image(), &amd64(), &[]);
    for lie in [b"{\"manifests\":[]}".to_vec(), b"{}".to_vec()] {
        let served = served.clone();
        let double = Double::new(move |request| match request.path.contains("sha256:") {
            true => Answer::new(200, lie.clone()),
            false => served.answer(request),
        });
        let error = Host::new().refused(&double);
        assert!(
            error.contains("wrong digest") || error.contains("more than"),
            "{error}"
        );
    }
    let image = image();
    let double = Double::new(move |_| Answer::new(200, image.top.clone()));
    let digest = crate::image::digest(b"another");
    let error = Host::new().pull_named(&format!("{}/test/image@{digest}", double.host()));
    let error = format!("{:#}", error.expect_err("another digest"));
    assert!(error.contains("wrong digest"), "{error}");
}

#[test]
fn document_that_never_ends_is_refused() {
    for body in [
        Body::Endless(vec![b' '; 64 << 10]),
        Body::Broken {
            bytes: Vec::new(),
            said: usize::MAX >> 1,
        },
    ] {
        let double = Double::new(move |_| Answer::of(200, body.clone()));
        let error = Host::new().refused(&double);
        assert!(
            error.contains("more than the 4194304 bytes") || error.contains("breaks off"),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let old = json!({"schemaVersion": 1, "fsLayers": []});
    let chart = image().changed(|manifest| {
        manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    });
    let both = image().changed(|manifest| manifest["manifests"] = json!([]));
    let encrypted = image().changed(|manifest| {
        manifest["layers"][0]["mediaType"] =
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
    });
    let climbing = image().changed(|manifest| {
        manifest["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into();
    });
    let many = image().changed(|manifest| {
        manifest["layers"] = vec![manifest["layers"][0].clone(); 1025].into();
    });
    for (served, reason) in [
        (nested(image(), &old), "schema 1"),
        (chart, "artefact of type \"application/vnd.cncf.helm"),
        (both, "index and manifest at once"),
        (encrypted, "is encrypted"),
        (climbing, "hexadecimal"),
        (many, "1025 layers"),
    ] {
        let host = Host::new();
        let error = host.refused(&double(served));
        assert!(error.contains(reason), "{error}");
    }
}

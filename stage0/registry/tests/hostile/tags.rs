//! Tags that come to mean another image while one is pulled.

use std::path::Path;

use crate::double::{Answer, Double};
use crate::image::{Host, Served, digest, layer};

/// The digest of the manifest that a layout has.
fn pulled(layout: &Path) -> String {
    let index = std::fs::read(layout.join("index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let digest = &index["manifests"][0]["digest"];
    digest.as_str().expect("a digest").to_owned()
}

#[test]
fn tag_that_moves_between_manifest_and_layers_gives_the_image_it_meant_first() {
    let (old, new) = (
        Served::new(&[layer(1, 3000)]),
        Served::new(&[layer(2, 3000)]),
    );
    let (first, second) = (digest(&old.top), digest(&new.top));
    let double = Double::new(move |request| {
        let before = request.path.ends_with("/latest") && request.before == 0;
        let has = |served: &Served| {
            let blob = request.path.rsplit('/').next().unwrap_or_default();
            served.blobs.contains_key(blob)
        };
        match before || has(&old) {
            true => old.answer(request),
            false => new.answer(request),
        }
    });
    let host = Host::new();
    let layout = host.pull(&double).expect("the image of the first answer");
    assert_eq!(pulled(&layout), first);
    let layout = host.pull(&double).expect("the image of the second");
    assert_eq!(pulled(&layout), second);
    assert_eq!(double.count("/latest"), 2);
}

#[test]
fn image_that_is_removed_once_its_tag_has_moved_is_an_error_and_the_next_pull_has_the_new_one() {
    let (old, new) = (
        Served::new(&[layer(1, 3000)]),
        Served::new(&[layer(2, 3000)]),
    );
    let second = digest(&new.top);
    let double = Double::new(move |request| {
        match request.path.ends_with("/latest") && request.before == 0 {
            true => old.answer(request),
            false => new.answer(request),
        }
    });
    let host = Host::new();
    let error = host.refused(&double);
    assert!(
        error.contains("404") && error.contains("not here"),
        "{error}"
    );
    let layout = host.pull(&double).expect("the new image");
    assert_eq!(pulled(&layout), second);
}

#[test]
fn image_named_by_digest_is_that_one_whatever_the_tag_means_and_is_asked_for_by_it() {
    let (old, new) = (
        Served::new(&[layer(1, 3000)]),
        Served::new(&[layer(2, 3000)]),
    );
    let first = digest(&old.top);
    let double = Double::new(move |request| {
        if request.path.ends_with("/latest") {
            return new.answer(request);
        }
        old.answer(request)
    });
    let host = Host::new();
    let name = format!("{}/test/image:latest@{first}", double.host());
    let layout = host.pull_named(&name).expect("the old image");
    assert_eq!(pulled(&layout), first);
    assert_eq!(double.count("/latest"), 0);
    let lying = Double::new(|_| Answer::new(200, "{}"));
    let name = format!("{}/test/image@{first}", lying.host());
    let error = host.pull_named(&name).expect_err("another document");
    assert!(format!("{error:#}").contains("wrong digest"), "{error:#}");
}

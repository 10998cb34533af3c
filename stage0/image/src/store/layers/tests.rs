//! Images that share layers, in a store.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crate::store::place::LAYER_DATA;
use crate::store::tests::{Bench, gzip, layout_of, noise, sha256, tar};
use crate::{Image, ImportOptions};

fn base() -> Vec<u8> {
    tar(&[("lib/big", &noise(50_000)), ("etc/x", b"x")])
}

fn upper(byte: u8) -> Vec<u8> {
    tar(&[("app", &[byte; 9000]), ("etc/.wh.x", b"")])
}

fn import(bench: &Bench, name: &str, tars: &[Vec<u8>]) -> Image {
    let path = bench.folder(name, &layout_of(tars));
    bench.import(&path).expect("an image")
}

/// What the store keeps of layers, sorted.
fn kept(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.store.place.layers()).expect("a store");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    names
}

fn folder_name(tar: &[u8]) -> String {
    sha256(tar).replace(':', "-")
}

fn remove(bench: &Bench, image: Image) {
    assert!(
        bench
            .store
            .remove_unless(image, |_| Ok(false))
            .expect("removed")
    );
}

#[test]
fn layer_of_two_images_is_there_once_until_both_have_gone() {
    let bench = Bench::new();
    let one = import(&bench, "one", &[base(), upper(1)]);
    let two = import(&bench, "two", &[base(), upper(2)]);
    let mut all = [base(), upper(1), upper(2)]
        .map(|tar| folder_name(&tar))
        .to_vec();
    all.sort();
    assert_eq!(kept(&bench), all);
    assert_eq!((one.data.len(), &one.data[0]), (2, &two.data[0]));
    bench.store.verify(&two).expect("whole");
    let space = bench
        .store
        .layer_space(&[one.clone(), two.clone()])
        .expect("space");
    let mut users: Vec<_> = space.iter().map(|layer| layer.images.len()).collect();
    users.sort_unstable();
    assert_eq!(users, [1, 1, 2]);
    remove(&bench, one);
    all.retain(|name| *name != folder_name(&upper(1)));
    assert_eq!(kept(&bench), all);
    bench.store.verify(&two).expect("whole");
    remove(&bench, two);
    assert_eq!(kept(&bench), [""; 0]);
}

#[test]
fn same_image_has_the_same_index_whether_its_layers_were_there_or_not() {
    let bytes = |first: &[&[Vec<u8>]]| {
        let bench = Bench::new();
        for (number, tars) in first.iter().enumerate() {
            import(&bench, &format!("first{number}"), tars);
        }
        let image = import(&bench, "image", &[base(), upper(1)]);
        fs::read(&image.rootfs).expect("an index")
    };
    let alone = bytes(&[]);
    assert!(bytes(&[&[base()]]) == alone);
    assert!(bytes(&[&[upper(7), upper(1)], &[upper(2), base()]]) == alone);
}

#[test]
fn layer_that_is_kept_needs_no_blob() {
    let bench = Bench::new();
    let first = import(&bench, "first", &[base()]);
    let mut parts = layout_of(&[base(), upper(1)]);
    let blob = format!("blobs/{}", sha256(&gzip(&base())).replace(':', "/"));
    parts.0.retain(|(name, _)| *name != blob);
    let path = bench.folder("image", &parts);
    bench.import(&path).expect("an image");
    remove(&bench, first);
    let image = bench.store.list().expect("a store").remove(0);
    remove(&bench, image);
    let error = bench.refused(&path);
    assert!(
        error.contains("blob") && error.contains("missing"),
        "{error}"
    );
}

#[test]
fn layer_that_is_kept_takes_no_room_of_a_limited_store() {
    let bench = Bench::new();
    import(&bench, "first", &[base()]);
    let taken = u64::MAX
        - bench
            .store
            .clone()
            .limited_to(Some(u64::MAX))
            .room()
            .expect("a store")
            .expect("a limit");
    let path = bench.folder("image", &layout_of(&[base(), upper(1)]));
    let within = |bytes: u64| {
        let store = bench.store.clone().limited_to(Some(taken + bytes));
        store.import(&path, &ImportOptions::default(), &|_| {})
    };
    let error = format!("{:#}", within(12 << 10).expect_err("too large"));
    assert!(error.contains("max-store-size"), "{error}");
    // Less than the layer takes that is there.
    within(40 << 10).expect("an image");
}

#[test]
fn import_that_fails_leaves_no_layer_but_those_that_others_have() {
    let bench = Bench::new();
    import(&bench, "first", &[base()]);
    let bad = tar(&[("x", b"1")])[..600].to_vec();
    let path = bench.folder("bad", &layout_of(&[base(), upper(1), bad]));
    bench.refused(&path);
    assert_eq!(kept(&bench), [folder_name(&base())]);
}

#[test]
fn layers_that_a_killed_import_left_are_used_by_the_next_and_go_with_the_others() {
    let bench = Bench::new();
    let image = import(&bench, "image", &[base()]);
    // As a process leaves it that is killed before its image is delivered.
    fs::remove_dir_all(bench.store.place.image(&image.id)).expect("an image");
    drop(image);
    let folder = bench.store.place.layers().join(folder_name(&base()));
    let number = || fs::metadata(folder.join(LAYER_DATA)).expect("data").ino();
    let written = number();
    import(&bench, "again", &[base()]);
    assert_eq!(number(), written);
    let other = import(&bench, "other", &[upper(1)]);
    fs::remove_dir_all(bench.store.place.image(&other.id)).expect("an image");
    drop(other);
    bench.store.trim_layers().expect("trim");
    assert_eq!(kept(&bench), [folder_name(&base())]);
}

/// The file of the layer's data, open to be changed.
fn data_of(bench: &Bench, tar: &[u8]) -> (PathBuf, fs::File) {
    let path = bench
        .store
        .place
        .layers()
        .join(folder_name(tar))
        .join(LAYER_DATA);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    let file = fs::File::options().write(true).open(&path).expect("data");
    (path, file)
}

#[test]
fn layer_whose_data_changed_is_told_and_one_that_is_cut_is_made_anew() {
    let bench = Bench::new();
    let image = import(&bench, "image", &[base(), upper(1)]);
    let (path, data) = data_of(&bench, &base());
    data.write_all_at(b"!", 5000).expect("a byte");
    let error = format!("{:#}", bench.store.verify(&image).expect_err("changed"));
    assert!(
        error.contains("is damaged") && error.contains(&*path.to_string_lossy()),
        "{error}"
    );
    data.set_len(4096).expect("cut");
    let other = import(&bench, "other", &[base(), upper(2)]);
    bench.store.verify(&other).expect("whole");
    bench.store.verify(&image).expect("whole again");
}

#[test]
fn layer_that_somebody_holds_stays_without_an_image() {
    let bench = Bench::new();
    let diff_id = sha256(&base()).parse().expect("a digest");
    assert!(bench.store.hold_layer(&diff_id).expect("a store").is_none());
    let image = import(&bench, "image", &[base()]);
    let held = bench.store.hold_layer(&diff_id).expect("a store");
    remove(&bench, image);
    // Who holds it keeps it.
    assert_eq!(kept(&bench), [folder_name(&base())]);
    drop(held);
    bench.store.trim_layers().expect("trim");
    assert_eq!(kept(&bench), [""; 0]);
}

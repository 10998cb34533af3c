//! ACIs over ACIs: what lies above what, what a whitelist leaves, which image a dependency means.

use std::collections::BTreeMap;
use std::io::Read;

use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use serde_json::{Value, json};

use super::*;
use crate::store::tests::{Bench, tar};

/// An ACI called `example.com/NAME` with these files, its manifest with `more` in it.
fn aci(name: &str, more: &Value, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": format!("example.com/{name}")});
    let (Some(manifest), Some(more)) = (manifest.as_object_mut(), more.as_object()) else {
        unreachable!("both are objects");
    };
    manifest.extend(more.clone());
    let manifest = serde_json::to_vec(manifest).unwrap();
    let named: Vec<_> = files
        .iter()
        .map(|(name, _)| format!("rootfs/{name}"))
        .collect();
    let contents = files.iter().map(|(_, content)| *content);
    let mut entries: Vec<_> = named.iter().map(String::as_str).zip(contents).collect();
    entries.push(("manifest", &manifest));
    tar(&entries)
}

fn depends(names: &[&str]) -> Value {
    let list: Vec<_> = names
        .iter()
        .map(|name| json!({"imageName": format!("example.com/{name}")}))
        .collect();
    json!({"dependencies": list})
}

/// What is at each path: the content of a file, the target of a link, a slash for a directory.
fn files(image: &Image) -> BTreeMap<String, String> {
    let bytes = std::fs::read(&image.rootfs).unwrap();
    let stored = EroFS::new(SliceImage::new(&bytes)).unwrap();
    let mut found = BTreeMap::new();
    for entry in stored.walk_dir("/").unwrap() {
        let entry = entry.unwrap();
        let path = entry.dir_entry.path().to_string_lossy().into_owned();
        let mut content = String::new();
        if entry.inode.is_file() {
            let mut file = stored.open_inode_file(entry.inode).unwrap();
            file.read_to_string(&mut content).unwrap();
        } else if entry.inode.is_symlink() {
            let target = stored.read_link_inode(entry.inode).unwrap();
            content = format!("-> {}", target.display());
        } else if entry.inode.is_dir() {
            content = "/".to_owned();
        }
        found.insert(path, content);
    }
    found
}

fn expected(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
        .collect()
}

impl Bench {
    fn aci(&self, name: &str, more: &Value, files: &[(&str, &[u8])]) -> Image {
        let path = self.write(&format!("{name}.aci"), &aci(name, more, files));
        self.import(&path).unwrap()
    }
}

#[test]
fn dependencies_lie_below_in_order_and_below_them_their_own() {
    let bench = Bench::new();
    bench.aci(
        "base",
        &json!({}),
        &[("a", b"base"), ("b", b"base"), ("c/d", b"base")],
    );
    bench.aci(
        "left",
        &depends(&["base"]),
        &[("b", b"left"), ("l", b"left")],
    );
    bench.aci(
        "right",
        &depends(&["base"]),
        &[("c", b"right"), ("l", b"right")],
    );
    let app = bench.aci("app", &depends(&["left", "right"]), &[("a", b"app")]);
    // The base of the one on the right lies above the one on the left.
    let found = [
        ("/a", "app"),
        ("/b", "base"),
        ("/c", "right"),
        ("/l", "right"),
    ];
    assert_eq!(files(&app), expected(&found));
    assert_eq!(app.below.len(), 2);
}

#[test]
fn whitelist_leaves_what_it_lists_and_what_leads_there() {
    let bench = Bench::new();
    bench.aci(
        "base",
        &json!({}),
        &[("usr/lib/x", b"x"), ("usr/lib/y", b"y"), ("etc/z", b"z")],
    );
    let mut builder = tar::Builder::new(aci(
        "app",
        &json!({"dependencies": [{"imageName": "example.com/base"}],
            "pathWhitelist": ["/lib/x", "/empty/", "/own", "/not/there", "/same"]}),
        &[("own", b"own"), ("empty/not", b"not"), ("other", b"other")],
    ));
    // The end mark goes, and comes again.
    let end = builder.get_ref().len() - 1024;
    builder.get_mut().truncate(end);
    let mut link = |name: &str, kind, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    };
    link("rootfs/lib", tar::EntryType::Symlink, "usr/lib");
    link("rootfs/same", tar::EntryType::Link, "rootfs/other");
    let path = bench.write("app.aci", &builder.into_inner().unwrap());
    let app = bench.import(&path).unwrap();
    let found = [
        ("/empty", "/"),
        ("/lib", "-> usr/lib"),
        ("/own", "own"),
        ("/same", "other"),
        ("/usr", "/"),
        ("/usr/lib", "/"),
        ("/usr/lib/x", "x"),
    ];
    assert_eq!(files(&app), expected(&found));
}

#[test]
fn missing_dependencies_are_named_all_and_change_nothing() {
    let bench = Bench::new();
    let labelled = json!({"dependencies": [
        {"imageName": "example.com/one", "labels": [{"name": "version", "value": "2"}]},
        {"imageName": "example.com/two"}]});
    let label = |version: &str| json!({"labels": [{"name": "version", "value": version}, {"name": "x", "value": "y"}]});
    bench.aci("one", &label("1"), &[("a", b"1")]);
    let path = bench.write("app.aci", &aci("app", &labelled, &[]));
    let error = bench.refused(&path);
    assert!(
        error.contains("example.com/one,version=2, example.com/two"),
        "{error}"
    );
    let missing = bench.import(&path).unwrap_err();
    let missing: &MissingDependencies = missing.downcast_ref().unwrap();
    assert_eq!(missing.missing.len(), 2);
    bench.aci("one", &label("2"), &[("a", b"2")]);
    bench.aci("two", &label("1"), &[("b", b"two")]);
    let app = bench.import(&path).unwrap();
    assert_eq!(files(&app), expected(&[("/a", "2"), ("/b", "two")]));
}

#[test]
fn dependency_by_id_and_size_is_that_image_or_none() {
    let bench = Bench::new();
    let base = bench.aci("base", &json!({}), &[("a", b"1")]);
    let size = base.source_bytes[0];
    let import = |dependency: Value| {
        let more = json!({"dependencies": [dependency]});
        bench.import(&bench.write("app.aci", &aci("app", &more, &[("own", b"own")])))
    };
    let of =
        |id: &str, size: u64| json!({"imageName": "example.com/base", "imageID": id, "size": size});
    assert_eq!(files(&import(of(&base.id, size)).unwrap()).len(), 2);
    let error = import(of(&base.id, size + 1)).unwrap_err();
    assert!(format!("{error:#}").contains("wrong size"), "{error:#}");
    let other = format!("sha512-{}", "0".repeat(128));
    assert!(
        import(of(&other, size))
            .unwrap_err()
            .is::<MissingDependencies>()
    );
    let error = import(of("sha512-00", size)).unwrap_err();
    assert!(
        format!("{error:#}").contains("128 hexadecimal"),
        "{error:#}"
    );
}

#[test]
fn image_over_a_newer_dependency_is_made_anew_and_without_it_stays() {
    let bench = Bench::new();
    let path = bench.write(
        "app.aci",
        &aci("app", &depends(&["base"]), &[("own", b"own")]),
    );
    let version = |version: &str| json!({"labels": [{"name": "version", "value": version}]});
    let old = bench.aci("base", &version("1"), &[("a", b"1")]);
    let app = bench.import(&path).unwrap();
    assert_eq!(app.below, std::slice::from_ref(&old.id));
    let below = [old.id.clone()];
    assert!(bench.store.remove_unless(old, |_| Ok(false)).unwrap());
    assert_eq!(bench.store.find(&app.id).unwrap().unwrap().below, below);
    let new = bench.aci("base", &version("2"), &[("a", b"2")]);
    let again = bench.import(&path).unwrap();
    assert_eq!((again.id, &again.below), (app.id.clone(), &vec![new.id]));
    let again = bench.store.find(&app.id).unwrap().unwrap();
    assert_eq!(files(&again), expected(&[("/a", "2"), ("/own", "own")]));
}

#[test]
fn lists_without_end_are_refused() {
    let bench = Bench::new();
    let names: Vec<_> = (0..=MAX_DEPENDENCIES).map(|_| "base").collect();
    let path = bench.write("many.aci", &aci("app", &depends(&names), &[]));
    assert!(bench.refused(&path).contains("more than 128"));
    let more = json!({"pathWhitelist": ["/a/../../b"]});
    let path = bench.write("climb.aci", &aci("app", &more, &[("a", b"a")]));
    assert!(bench.refused(&path).contains("leads out of the image"));
}

#[test]
fn exported_image_depends_on_nothing_any_more() {
    let bench = Bench::new();
    bench.aci("base", &json!({}), &[("a", b"base")]);
    let app = bench.aci("app", &depends(&["base"]), &[("b", b"app")]);
    let mut exported = Vec::new();
    let form = crate::store::Archive::Aci;
    bench.store.export(&app, None, form, &mut exported).unwrap();
    let other = Bench::new();
    let again = other.import(&other.write("app.aci", &exported)).unwrap();
    assert_eq!(files(&again), files(&app));
}

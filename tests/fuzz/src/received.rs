//! A tree of files as a machine sends it. Input: a tar.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;

use image::{Place, extract, reframe};
use tar::{Archive, Builder, EntryType};

use crate::layers::{sum_headers, tar};

/// What the tree is called.
const ROOT: &str = "r";

/// Puts the tree into a folder, beside which nothing may change, and writes it anew, which any reader must be able to read.
pub fn run(input: &[u8]) {
    let mut input = input.to_vec();
    sum_headers(&mut input);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("place");
    fs::create_dir(&place).expect("a folder");
    // What is wrong with the tree is no matter.
    let _ = extract(
        &*input,
        ROOT,
        Place {
            folder: &place,
            name: Some(OsStr::new("n")),
        },
    );
    for (folder, only) in [(folder.path(), "place"), (&place, "n")] {
        let mut names = fs::read_dir(folder).expect("the folder");
        let beside = |name: &fs::DirEntry| name.file_name() != only;
        let escaped = names.find_map(|entry| entry.ok().filter(beside));
        assert!(escaped.is_none(), "{escaped:?}");
    }
    let mut to = Builder::new(Vec::new());
    if reframe(&*input, ROOT, &mut to).is_ok() {
        read_back(&to.into_inner().expect("a tar in memory"));
    }
}

fn read_back(tar: &[u8]) {
    let mut archive = Archive::new(tar);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a whole entry");
        assert!(entry.path_bytes().starts_with(ROOT.as_bytes()));
        entry.read_to_end(&mut Vec::new()).expect("all of its data");
    }
}

/// A tree with every kind of entry, and one that climbs.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    use EntryType::{Directory, Fifo, Link, Regular, Symlink, XHeader};
    let tree = tar(&[
        ("r", Directory, b""),
        ("r/f", Regular, &[7; 700]),
        ("r/l", Symlink, b"/etc"),
        ("r/h", Link, b"r/f"),
        ("r/p", Fifo, b""),
        ("x", XHeader, b"30 SCHILY.xattr.user.a=value\n\n"),
        ("./r/d/", Directory, b""),
    ]);
    let climbing = tar(&[
        ("r", Directory, b""),
        ("r/l", Symlink, b".."),
        ("r/l/x", Regular, b"x"),
        ("r/../../x", Regular, b"x"),
    ]);
    vec![tree, climbing]
}

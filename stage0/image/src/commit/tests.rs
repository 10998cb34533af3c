//! Layers of what differs, applied again: above the first tree they give the second.

use std::io::{Read, Write};

use anyhow::Result;
use archive::{Entry, Kind, Xattrs};
use proptest::prelude::*;

use super::difference;
use crate::Writer;
use crate::erofs::Losses;
use crate::layer::tests::tars::Tar;
use crate::layer::tests::{bytes_of, convert, model};
use crate::limits::Limits;
use crate::outgoing::tar::Form;
use crate::outgoing::tests::{everything, exported, image};
use crate::outgoing::{Files, Shape};

/// What the trees of these tests are called in a tar.
const ROOT: &str = "rootfs";

fn stored(image: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(image).expect("room");
    file
}

/// The tree of an image as a machine sends it.
fn sent(image: &[u8]) -> Vec<u8> {
    exported(image, Form::Aci).0
}

fn layer(base: Option<&[u8]>, tar: &[u8]) -> Result<(Vec<u8>, Losses)> {
    let base = base.map(stored);
    let files = base.as_ref().map(|base| Files::open(base.path(), &[]));
    let mut layer = Vec::new();
    let losses = difference(files.transpose()?.as_ref(), tar, ROOT, &mut layer)?;
    Ok((layer, losses))
}

/// The image that `layer` makes of `base`.
fn above(base: Option<&[u8]>, layer: &[u8]) -> Result<Vec<u8>> {
    let output = tempfile::tempfile()?;
    let scratch = tempfile::tempfile()?;
    let mut writer = Writer::new(output.try_clone()?, scratch, Limits::default())?;
    if let Some(base) = base {
        writer.apply_stored(&Files::open(stored(base).path(), &[])?)?;
    }
    writer.apply_layer(layer)?;
    writer.finish()?;
    bytes_of(&output)
}

/// Everything that can be said of the files of an image.
fn listed(image: &[u8]) -> Vec<(String, Shape, String, Xattrs, Vec<u8>)> {
    let file = stored(image);
    let files = Files::open(file.path(), &[]).expect("an image");
    let mut listed = Vec::new();
    let walked = files.each(|found| {
        let mut content = Vec::new();
        if found.shape == Shape::File {
            files.content(found, 0).read_to_end(&mut content)?;
        }
        let path = found.path.escape_ascii().to_string();
        let attributes = format!("{:?}", found.attributes);
        listed.push((
            path,
            found.shape.clone(),
            attributes,
            found.xattrs.clone(),
            content,
        ));
        Ok(())
    });
    walked.expect("an image");
    listed
}

fn names(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().expect("a tar");
    let paths = entries.map(|entry| entry.expect("an entry").path_bytes().into_owned());
    paths.map(|path| path.escape_ascii().to_string()).collect()
}

/// The layer that makes the second image of the first one, which is tried.
#[track_caller]
fn between(first: &[u8], second: &[u8]) -> Vec<u8> {
    let (layer, losses) = layer(Some(first), &sent(second)).expect("a layer");
    assert_eq!(losses, Losses::default());
    let made = above(Some(first), &layer).expect("an image");
    assert_eq!(listed(&made), listed(second));
    layer
}

proptest! {
    #[test]
    fn layer_between_trees_at_random_gives_the_second(
        lower in model::layer(), upper in model::layer(), is_apart in any::<bool>()
    ) {
        let Ok((_, first)) = convert(std::slice::from_ref(&lower), Limits::default()) else { return Ok(()) };
        let layers = match is_apart {
            true => vec![upper],
            false => vec![lower, upper],
        };
        let Ok((_, second)) = convert(&layers, Limits::default()) else { return Ok(()) };
        between(&first, &second);
        prop_assert_eq!(names(&between(&second, &second)), Vec::<String>::new());
        let (whole, _) = layer(None, &sent(&second)).expect("a layer");
        prop_assert_eq!(listed(&above(None, &whole).expect("an image")), listed(&second));
    }
}

#[test]
fn layer_of_nothing_changed_is_empty_whatever_the_image_holds() {
    let image = image(everything());
    assert!(names(&between(&image, &image)).is_empty());
}

#[test]
fn layer_of_everything_new_or_gone_gives_it() {
    let (empty, full) = (image(Tar::default()), image(everything()));
    assert!(names(&between(&empty, &full)).contains(&"h".to_owned()));
    let gone = names(&between(&full, &empty));
    assert!(gone.contains(&".wh.h".to_owned()), "{gone:?}");
    assert!(!gone.iter().any(|name| name.starts_with("h/")), "{gone:?}");
}

#[test]
fn file_is_whole_in_the_layer_wherever_it_differs() {
    let with = |content: &[u8]| image(Tar::default().file("big", content).file("same", content));
    let first = with(&[7; 200_000]);
    for at in [0, 65_535, 65_536, 199_999] {
        let mut content = vec![7; 200_000];
        content[at] = 8;
        let second = image(
            Tar::default()
                .file("big", &content)
                .file("same", &[7; 200_000]),
        );
        assert_eq!(names(&between(&first, &second)), ["big"], "{at}");
    }
}

#[test]
fn folder_that_gave_way_to_another_hides_only_what_that_has_not() {
    let folder = || Tar::default().directory("d").file("d/kept", b"1");
    let first = image(
        folder()
            .file("d/gone", b"2")
            .directory("d/sub")
            .file("d/sub/x", b"3"),
    );
    let second = image(folder().file("d/new", b"4").symlink("d/sub", "new"));
    let layer = names(&between(&first, &second));
    assert_eq!(layer, ["d/.wh.gone", "d/new", "d/sub"]);
}

/// What a file's writer sees in an overlay, of which the writable layer has only the name that was written to.
#[test]
fn file_written_to_by_one_name_changes_under_all_and_stays_one() {
    let linked = |content: &[u8]| {
        let tar = Tar::default().file("a", content);
        tar.hard_link("b", "a").hard_link("c", "a")
    };
    let (first, second) = (image(linked(b"1")), image(linked(b"2").hard_link("d", "a")));
    assert_eq!(names(&between(&first, &second)), ["a", "b", "c", "d"]);
    let linked_once_more = image(linked(b"1").hard_link("d", "a"));
    assert_eq!(names(&between(&first, &linked_once_more)), ["d"]);
}

#[test]
fn name_that_would_hide_another_is_left_out_and_told() {
    let tar = packed(&[
        ("rootfs", Kind::Directory),
        ("rootfs/.wh.a", Kind::File(4)),
        ("rootfs/a", Kind::File(4)),
        ("rootfs/b", Kind::HardLink(b"rootfs/.wh.a")),
    ]);
    let (layer, losses) = layer(None, &tar).expect("a layer");
    assert_eq!(names(&layer), ["./", "a"]);
    assert_eq!(losses.count, 2);
}

fn packed(entries: &[(&str, Kind)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind) in entries {
        let entry = Entry {
            path: path.as_bytes(),
            kind: *kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (1, 0),
            xattrs: &Xattrs::new(),
        };
        entry.append(&mut tar, &b"text"[..]).expect("room");
    }
    tar.into_inner().expect("a tar")
}

#[test]
fn tree_that_is_a_lie_is_refused_or_stays_inside() {
    let base = image(Tar::default().directory("d").file("d/f", b"1"));
    let (folder, file) = (Kind::Directory, Kind::File(4));
    let root = ("rootfs", folder);
    let hostile: [&[(&str, Kind)]; 9] = [
        &[],
        &[("rootfs/a", file)],
        &[root, root],
        &[root, ("rootfs/b", file), ("rootfs/a", file)],
        &[root, ("rootfs/d/f", file), ("rootfs/d", folder)],
        &[root, ("rootfs/../x", file)],
        &[root, ("other", file)],
        &[root, ("rootfs/l", Kind::HardLink(b"/etc/passwd"))],
        &[("rootfs", Kind::Symlink(b"/"))],
    ];
    for entries in hostile {
        let made =
            layer(Some(&base), &packed(entries)).and_then(|(layer, _)| above(Some(&base), &layer));
        assert!(made.is_err(), "{entries:?}");
    }
    // A link to what the tree has not: refused by who reads the layer.
    let dangling = packed(&[root, ("rootfs/l", Kind::HardLink(b"rootfs/none"))]);
    let (layer, _) = layer(Some(&base), &dangling).expect("a layer");
    let error = above(Some(&base), &layer).expect_err("a link to nothing");
    assert!(
        format!("{error:#}").contains("not in the image"),
        "{error:#}"
    );
}

#[test]
fn tree_that_is_cut_short_is_an_error() {
    let base = image(Tar::default().file("a", &[7; 9000]));
    let tar = sent(&base);
    let cut = &tar[..tar.len() - 4096];
    let error = layer(Some(&base), cut).expect_err("half a file");
    assert!(format!("{error:#}").contains("cut short"), "{error:#}");
}

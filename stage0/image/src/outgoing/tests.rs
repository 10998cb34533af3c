//! Images go out as tars and come in again.

use std::io::Write;

use tar::EntryType;

use super::files::Files;
use super::tar::{Form, append};
use crate::erofs::Losses;
use crate::layer::tests::tars::Tar;
use crate::layer::tests::{convert, read_back};
use crate::limits::Limits;

pub(crate) fn exported(image: &[u8], form: Form) -> (Vec<u8>, Losses) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(image).expect("an image");
    let files = Files::open(file.path(), &[]).expect("an image");
    let mut tar = tar::Builder::new(Vec::new());
    let losses = append(&files, form, &mut tar).expect("a tar");
    (tar.into_inner().expect("a tar"), losses)
}

pub(crate) fn image(layer: Tar) -> Vec<u8> {
    convert(&[layer.end()], Limits::default())
        .expect("an image")
        .1
}

/// Everything that a layer can hold, each with what a header has no room for.
pub(crate) fn everything() -> Tar {
    let long = "l".repeat(98);
    Tar::default()
        .pax(&[("mtime", b"-1.5")])
        .with_header("./", EntryType::Directory, b"", "", |header| {
            header.set_mode(0o1700);
        })
        .pax(&[
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            ("SCHILY.xattr.user.k", b"v=\n\0"),
            ("uid", b"4000000000"),
            ("mtime", b"7258118400.123456789"),
        ])
        .with_header("a", EntryType::Regular, &[7; 70_000], "", |header| {
            header.set_mode(0o4755);
        })
        .hard_link("b", "a")
        .pax(&[("linkpath", "t/".repeat(200).as_bytes())])
        .symlink("c", "x")
        .hard_link("c2", "c")
        .with_header("d", EntryType::Char, b"", "", |header| {
            header.set_device_major(5).expect("room");
            header.set_device_minor(260).expect("room");
        })
        .hard_link("d2", "d")
        .with_header("e", EntryType::Block, b"", "", |header| {
            header.set_device_major(8).expect("room");
            header.set_device_minor(1).expect("room");
        })
        .entry("f", EntryType::Fifo, b"", "")
        .pax(&[("path", b"g/\xff\xfe")])
        .file("x", b"bytes")
        .directory(&format!("h/{long}"))
        .file("i", b"")
}

#[test]
fn layer_of_an_image_is_the_same_image() {
    let first = image(everything());
    let (tar, losses) = exported(&first, Form::Layer);
    assert_eq!(losses, Losses::default());
    let second = convert(std::slice::from_ref(&tar), Limits::default())
        .expect("an image")
        .1;
    let (mut before, mut after) = (read_back(&first), read_back(&second));
    for seen in [&mut before, &mut after]
        .into_iter()
        .flatten()
        .flat_map(|seen| seen.values_mut())
    {
        seen.inode = 0;
    }
    assert_eq!(before.expect("an image"), after.expect("an image"));
    assert!(
        exported(&second, Form::Layer).0 == tar,
        "as bytes, with what the reader leaves out"
    );
    for record in [
        &b"SCHILY.xattr.security.capability=\x01\0\0\x02"[..],
        b"SCHILY.xattr.user.k=v=\n\0",
    ] {
        assert!(tar.windows(record.len()).any(|bytes| bytes == record));
    }
}

/// An image with a file of that many bytes that has five at 1 MiB and five at its end.
fn sparse(bytes: u64) -> Vec<u8> {
    let mut content = format!("2\n1048576\n5\n{}\n5\n", bytes - 5).into_bytes();
    content.resize(512, 0);
    content.extend(b"hellohello");
    let layer = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"big"),
            ("GNU.sparse.realsize", bytes.to_string().as_bytes()),
        ])
        .file("x", &content)
        .file("zeros", &[0; 1 << 20]);
    image(layer)
}

#[test]
fn file_with_holes_is_whole_in_a_layer() {
    let first = sparse(8 << 20);
    let (tar, _) = exported(&first, Form::Layer);
    assert!(tar.len() > 9 << 20, "{} bytes", tar.len());
    let (_, second) = convert(std::slice::from_ref(&tar), Limits::default()).expect("an image");
    assert!(second.len() < 1 << 20, "{} bytes", second.len());
    let content = |image: &[u8]| {
        read_back(image).expect("an image")[&b"big".to_vec()]
            .content
            .clone()
    };
    assert!(content(&first) == content(&second));
    assert!(exported(&second, Form::Layer).0 == tar);
}

#[test]
fn file_with_holes_is_stored_without_them_in_an_aci() {
    let first = sparse(10 << 30);
    let (tar, _) = exported(&first, Form::Aci);
    assert!(tar.len() < 32 << 10, "{} bytes", tar.len());
    let second = from_aci(&tar);
    assert!(exported(&second, Form::Aci).0 == tar);
}

fn from_aci(tar: &[u8]) -> Vec<u8> {
    let output = tempfile::tempfile().expect("a file");
    let clone = output.try_clone().expect("a descriptor");
    let scratch = tempfile::tempfile().expect("a file");
    let mut writer = crate::Writer::new(clone, scratch, Limits::default()).expect("a writer");
    let archive = writer.apply_archive(tar, "rootfs", &mut |_, _| Ok(()));
    archive.expect("an archive");
    writer.finish().expect("an image");
    crate::layer::tests::bytes_of(&output).expect("an image")
}

#[test]
fn name_that_would_hide_another_is_left_out_of_a_layer_alone() {
    let bytes = Tar::default()
        .directory("rootfs")
        .file("rootfs/.wh.a", b"1")
        .file("rootfs/a", b"2");
    let image = from_aci(&bytes.end());
    let (layer, losses) = exported(&image, Form::Layer);
    assert_eq!((losses.count, tar_names(&layer).len()), (1, 2));
    let (aci, losses) = exported(&image, Form::Aci);
    assert_eq!(losses.count, 0);
    assert_eq!(tar_names(&aci), ["rootfs", "rootfs/.wh.a", "rootfs/a"]);
}

fn tar_names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("a tar");
    let names = entries.map(|entry| entry.expect("an entry").path_bytes().into_owned());
    names
        .map(|name| String::from_utf8(name).expect("text"))
        .collect()
}

#[test]
fn damaged_image_is_an_error_that_says_where() {
    let mut bytes = image(
        Tar::default()
            .directory("d")
            .file("d/f", &[1; 9000])
            .symlink("d/l", "f"),
    );
    let begun = bytes.len() - 4096;
    bytes[begun..].iter_mut().for_each(|byte| *byte ^= 0xff);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&bytes).expect("an image");
    let error = Files::open(file.path(), &[]).and_then(|files| files.each(|_| Ok(())));
    let error = format!("{:#}", error.expect_err("nothing to read"));
    assert!(error.contains("of the image"), "{error}");
}

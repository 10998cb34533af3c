//! Whole images for one property each.

use std::io::Write;
use std::process::Command;

use tar::EntryType;

use super::tars::Tar;
use super::{bytes_of, convert, read_back};
use crate::erofs::Writer;
use crate::limits::Limits;

fn paths(layers: &[Vec<u8>]) -> Vec<String> {
    let (_, image) = convert(layers, Limits::default()).expect("convert");
    let seen = read_back(&image).expect("read back");
    seen.keys()
        .map(|path| path.escape_ascii().to_string())
        .collect()
}

fn refusal(tar: Tar) -> String {
    format!(
        "{:#}",
        convert(&[tar.end()], Limits::default()).expect_err("refused")
    )
}

#[test]
fn whiteout_of_lower_layer_hides_and_same_layer_stays() {
    let lower = Tar::default()
        .file("a/low", b"1")
        .file("b/low", b"2")
        .file("c", b"3")
        .end();
    let upper =
        Tar::default()
            .file("a/new", b"4")
            .entry("a/.wh..wh..opq", EntryType::Regular, b"", "");
    let upper = upper
        .file(".wh.b", b"")
        .file("c", b"5")
        .file(".wh.c", b"")
        .file(".wh..wh.plnk", b"")
        .end();
    assert_eq!(paths(&[lower, upper]), ["", "a", "a/new", "c"]);
}

#[test]
fn symlinked_parent_resolves_inside_the_image() {
    let tar = Tar::default()
        .directory("usr/lib")
        .symlink("lib", "/usr/lib")
        .symlink("up", "../../usr/./lib/../new");
    let tar = tar
        .file("lib/x", b"x")
        .file("up/y", b"y")
        .hard_link("z", "lib/x")
        .end();
    assert_eq!(
        paths(&[tar]),
        [
            "",
            "lib",
            "up",
            "usr",
            "usr/lib",
            "usr/lib/x",
            "usr/new",
            "usr/new/y",
            "z"
        ]
    );
}

#[test]
fn names_that_climb_out_are_refused_with_the_name() {
    assert!(
        refusal(Tar::default().file("a/../../etc/x", b""))
            .contains("a/../../etc/x: name leads out")
    );
    let link = Tar::default().hard_link("link", "../outside");
    assert!(refusal(link).starts_with("link: hard link to ../outside"));
    let looping = Tar::default().symlink("l", "l").file("l/x", b"");
    assert!(refusal(looping).contains("more than 40 symbolic links"));
    assert!(refusal(Tar::default().file("f", b"").file("f/x", b"")).contains("not a directory"));
}

#[test]
fn attributes_of_every_kind_come_back() {
    let pax: &[(&str, &[u8])] = &[
        ("mtime", b"-1.25"),
        ("uid", b"4000000000"),
        ("path", b"n\xff\xfe/long"),
        ("SCHILY.xattr.user.k", b"a\nb"),
    ];
    let tar = Tar::default()
        .pax(pax)
        .with_header("x", EntryType::Regular, b"data", "", |header| {
            header.set_mode(0o104_755);
        });
    let (_, image) = convert(&[tar.end()], Limits::default()).expect("convert");
    let seen = &read_back(&image).expect("read back")[&b"n\xff\xfe/long".to_vec()];
    assert_eq!(
        (seen.mode, seen.owner, seen.time),
        (0o4755, (4_000_000_000, 0), (-2, 750_000_000))
    );
    assert_eq!(seen.content, b"data");
}

#[test]
fn overlay_marks_are_left_out_and_told() {
    let tar = Tar::default()
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .directory("d");
    let tar = tar.entry("whiteout", EntryType::Char, b"", "").end();
    let (finished, image) = convert(&[tar], Limits::default()).expect("convert");
    assert_eq!(finished.losses.count, 2, "{:?}", finished.losses);
    assert_eq!(read_back(&image).expect("read back").len(), 2);
}

#[test]
fn sparse_file_of_ten_gib_takes_less_than_a_mebibyte() {
    let tar = Tar::default().pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"big"),
        ("GNU.sparse.realsize", b"10737418240"),
    ]);
    let mut content = b"1\n10737418235\n5\n".to_vec();
    content.resize(512, 0);
    content.extend(b"hello");
    let (finished, image) =
        convert(&[tar.file("x", &content).end()], Limits::default()).expect("convert");
    assert!(finished.bytes < 1 << 20, "{} bytes", finished.bytes);
    let image = erofs_rs::EroFS::new(erofs_rs::backend::SliceImage::new(&image)).expect("image");
    let mut end = [0; 6];
    image
        .open("/big")
        .expect("open")
        .read_at(&mut end, 10_737_418_234)
        .expect("read");
    assert_eq!(&end, b"\0hello");
}

#[test]
fn zero_runs_of_ordinary_files_become_holes() {
    let mut content = vec![0; 3 << 20];
    content[100_000] = 1;
    *content.last_mut().expect("not empty") = 2;
    content.extend([7; 10]);
    let (finished, image) = convert(
        &[Tar::default().file("f", &content).end()],
        Limits::default(),
    )
    .expect("convert");
    assert!(finished.bytes < 160 << 10, "{} bytes", finished.bytes);
    assert!(read_back(&image).expect("read back")[&b"f".to_vec()].content == content);
}

#[test]
fn data_hidden_by_an_upper_layer_is_punched() {
    let lower = Tar::default().file("f", &[7; 1 << 20]).end();
    let (finished, image) = convert(
        &[lower, Tar::default().file("f", b"new").end()],
        Limits::default(),
    )
    .expect("convert");
    assert_eq!(finished.dead_bytes, 1 << 20);
    assert!(!image.windows(64).any(|bytes| bytes == [7; 64]));
}

#[test]
fn archive_with_a_prefix_hands_out_what_lies_outside() {
    let tar = Tar::default()
        .file("manifest", b"{}")
        .directory("rootfs")
        .file("rootfs/.wh.a", b"1")
        .hard_link("rootfs/b", "rootfs/.wh.a");
    let output = tempfile::tempfile().expect("file");
    let scratch = tempfile::tempfile().expect("file");
    let mut writer = Writer::new(
        output.try_clone().expect("clone"),
        scratch,
        Limits::default(),
    )
    .expect("writer");
    let mut outside = Vec::new();
    let mut keep = |path: &[u8], data: &mut dyn std::io::Read| {
        outside.extend_from_slice(path);
        Ok(data.read_to_end(&mut outside).map(drop)?)
    };
    writer
        .apply_archive(tar.end().as_slice(), "rootfs", &mut keep)
        .expect("archive");
    writer.finish().expect("finish");
    assert_eq!(outside, b"manifest{}");
    let seen = read_back(&bytes_of(&output).expect("bytes")).expect("read back");
    assert_eq!((seen.len(), seen[&b"b".to_vec()].links), (3, 2));
}

#[test]
fn image_of_many_names_passes_fsck() {
    let mut tar = Tar::default()
        .symlink("link", &"t".repeat(90))
        .file("big", &[5; 70_000])
        .file("zeros", &[0; 1 << 20]);
    for number in 0..2000 {
        tar = tar.file(
            &format!("many/{number}-{}", "n".repeat(number % 80)),
            &vec![1; number * 7],
        );
    }
    let (_, image) = convert(&[tar.end()], Limits::default()).expect("convert");
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(&image).expect("write");
    let fsck = Command::new("fsck.erofs")
        .arg(file.path())
        .output()
        .expect("fsck.erofs of erofs-utils");
    assert!(
        fsck.status.success(),
        "{}",
        String::from_utf8_lossy(&fsck.stderr)
    );
    assert_eq!(read_back(&image).expect("read back").len(), 2005);
}

#[test]
fn same_layers_give_the_same_bytes() {
    let layers = [
        Tar::default().file("a/f", &[1; 9000]).file("b", b"2").end(),
        Tar::default().file(".wh.b", b"").end(),
    ];
    let one = convert(&layers, Limits::default()).expect("convert").1;
    assert!(one == convert(&layers, Limits::default()).expect("convert").1);
}

#[test]
fn folder_of_the_host_is_taken_with_links_and_holes() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("d")).expect("folder");
    std::fs::write(path("d/f"), b"content").expect("file");
    std::fs::hard_link(path("d/f"), path("also")).expect("hard link");
    std::os::unix::fs::symlink("/etc", path("out")).expect("symbolic link");
    let sparse = std::fs::File::create(path("sparse")).expect("file");
    sparse.set_len(2 << 30).expect("grow");
    let output = tempfile::tempfile().expect("file");
    let scratch = tempfile::tempfile().expect("file");
    let clone = output.try_clone().expect("clone");
    let mut writer = Writer::new(clone, scratch, Limits::default()).expect("writer");
    writer.apply_folder(folder.path()).expect("folder");
    let finished = writer.finish().expect("finish");
    assert!(finished.bytes < 256 << 10, "{} bytes", finished.bytes);
    let image = bytes_of(&output).expect("bytes");
    let image = erofs_rs::EroFS::new(erofs_rs::backend::SliceImage::new(&image)).expect("image");
    let names: Vec<_> = image
        .walk_dir("/")
        .expect("walk")
        .map(|entry| entry.expect("entry"))
        .collect();
    let names: Vec<_> = names
        .iter()
        .map(|entry| (entry.dir_entry.path(), entry.inode.nlink()))
        .collect();
    let names: Vec<_> = names
        .iter()
        .map(|(path, links)| (path.as_bytes(), *links))
        .collect();
    assert_eq!(
        names,
        [
            (&b"/also"[..], 2),
            (b"/d", 2),
            (b"/d/f", 2),
            (b"/out", 1),
            (b"/sparse", 1)
        ]
    );
}

#[test]
fn image_put_below_another_comes_back_with_everything() {
    let long = "x".repeat(90);
    let tar = Tar::default()
        .pax(&[("SCHILY.xattr.user.k", b"v\0w"), ("mtime", b"-5.25")])
        .file("a/file", b"content")
        .hard_link("b", "a/file")
        .symlink("link", &long)
        .with_header("null", EntryType::Char, b"", "", |header| {
            header.set_device_major(1).expect("ustar");
            header.set_device_minor(3).expect("ustar");
        })
        .entry("pipe", EntryType::Fifo, b"", "")
        .with_header("su", EntryType::Regular, &[7; 9000], "", |header| {
            header.set_mode(0o6755);
            header.set_uid(70_000);
        })
        .end();
    let (_, lower) = convert(&[tar], Limits::default()).expect("convert");
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(&lower).expect("write");
    let output = tempfile::tempfile().expect("file");
    let scratch = tempfile::tempfile().expect("file");
    let mut writer = Writer::new(
        output.try_clone().expect("descriptor"),
        scratch,
        Limits::default(),
    )
    .expect("writer");
    let files = crate::outgoing::Files::open(file.path(), &[]).expect("an image");
    writer.apply_stored(&files).expect("apply");
    writer.finish().expect("finish");
    let image = bytes_of(&output).expect("read");
    assert_eq!(everything(&image), everything(&lower));
    assert_eq!(everything(&image).len(), 8);
}

/// All that an image says of each path, but for the numbers of its inodes.
fn everything(image: &[u8]) -> Vec<String> {
    let opened = erofs_rs::EroFS::new(erofs_rs::backend::SliceImage::new(image)).expect("image");
    let seen = read_back(image).expect("read back");
    let told = seen.into_iter().map(|(path, mut seen)| {
        let inode = opened.get_inode(seen.inode).expect("inode");
        let xattrs = opened.xattrs_inode(inode).expect("xattrs");
        seen.inode = 0;
        let (kind, device) = (inode.file_type(), inode.device());
        format!(
            "{} {kind:?} {device:?} {xattrs:?} {seen:?}",
            path.escape_ascii()
        )
    });
    told.collect()
}

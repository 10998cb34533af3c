//! Tars that lie. Whatever they say, the writer answers with an error or an image, within its limits.

use proptest::prelude::*;
use tar::EntryType;

use super::tars::Tar;
use super::{convert, read_back};
use crate::erofs::Writer;
use crate::limits::Limits;

fn small() -> Limits {
    Limits {
        image_bytes: 1 << 20,
        input_bytes: 1 << 20,
        entries: 50,
        header_bytes: 4096,
        depth: 8,
        ..Limits::default()
    }
}

fn refusal(tar: Tar) -> String {
    format!("{:#}", convert(&[tar.end()], small()).expect_err("refused"))
}

#[test]
fn limits_are_told_by_what_goes_over_them() {
    let huge_size = |header: &mut tar::Header| header.set_size(u64::MAX / 2);
    let long_name = Tar::default().with_header("x", EntryType::GNULongName, b"", "", huge_size);
    assert!(refusal(long_name).contains("extended header"));
    assert!(
        refusal(Tar::default().with_header("x", EntryType::Regular, b"", "", huge_size))
            .contains("larger than the limit")
    );
    let deep = (0..9).map(|_| "d").collect::<Vec<_>>().join("/");
    assert!(refusal(Tar::default().directory(&deep)).contains("nested deeper"));
    let many = (0..60).fold(Tar::default(), |tar, number| {
        tar.file(&number.to_string(), b"")
    });
    assert!(refusal(many).contains("more than 50 entries"));
    assert!(refusal(Tar::default().file("x", &[1; 1 << 20])).contains("limit"));
    assert!(refusal(Tar::default().file("x", &vec![0; 2 << 20])).contains("limit"));
}

#[test]
fn extended_headers_of_one_entry_share_one_limit() {
    let value = [b'x'; 3000];
    let attribute = |name| [(name, &value[..])];
    let one_entry = Tar::default()
        .pax(&attribute("SCHILY.xattr.user.a"))
        .pax(&attribute("SCHILY.xattr.user.b"))
        .file("x", b"");
    assert!(refusal(one_entry).contains("extended headers of an entry"));
    let two_entries = Tar::default()
        .pax(&attribute("SCHILY.xattr.user.a"))
        .file("x", b"")
        .pax(&attribute("SCHILY.xattr.user.b"))
        .file("y", b"");
    convert(&[two_entries.end()], small()).expect("each entry is within the limit");
}

#[test]
fn tar_cut_short_anywhere_is_an_error_or_a_shorter_image() {
    let whole = Tar::default()
        .pax(&[("path", b"long")])
        .file("x", &[1; 700])
        .directory("d")
        .end();
    for length in 0..whole.len() {
        if let Ok((_, image)) = convert(&[whole[..length].to_vec()], small()) {
            read_back(&image).expect("a valid image");
            // Between blocks, or right after the data of the extended header or of x: umoci ends layers so.
            assert!(
                length % 512 == 0 || [512 + 13, 3 * 512 + 700].contains(&length),
                "{length}"
            );
        }
    }
}

/// Each costs 1.5 KiB of the tar, and 256 KiB of the scratch file for its list of chunks.
#[test]
fn sparse_files_cannot_fill_the_scratch_file_beyond_the_image_limit() {
    let huge = Tar::default()
        .pax(&[
            ("GNU.sparse.map", b""),
            ("GNU.sparse.size", b"1099511627776"),
        ])
        .file("x", b"");
    let output = tempfile::tempfile().expect("file");
    let scratch = tempfile::tempfile().expect("file");
    let kept = scratch.try_clone().expect("clone");
    let mut writer = Writer::new(output, scratch, small()).expect("writer");
    let tar = Tar(huge.0.repeat(40)).end();
    let error = writer.apply_layer(tar.as_slice()).expect_err("refused");
    assert!(
        format!("{error:#}").contains("larger than the limit"),
        "{error:#}"
    );
    assert!(kept.metadata().expect("metadata").len() <= 2 << 20);
}

proptest! {
    #[test]
    fn tar_of_changed_bytes_never_panics(changes in prop::collection::vec((0usize..6000, any::<u8>(), any::<bool>()), 1..20)) {
        let tar = Tar::default().pax(&[("path", b"a/b"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"x")]).file("x", &[1; 700]);
        let tar = tar.pax(&[("GNU.sparse.map", b"0,5,100,5"), ("GNU.sparse.size", b"200"), ("GNU.sparse.name", b"s")]).file("x", &[2; 10]);
        let tar = tar.entry("S", EntryType::GNUSparse, &[3; 512], "").symlink("l", "a").hard_link("h", "a/b").file(".wh.a", b"");
        let mut bytes = tar.end();
        for (at, value, keep_sum) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
            let header = at / 512 * 512;
            if keep_sum {
                let mut block = tar::Header::from_byte_slice(&bytes[header..header + 512]).clone();
                block.set_cksum();
                bytes[header..header + 512].copy_from_slice(block.as_bytes());
            }
        }
        if let Ok((_, image)) = convert(&[bytes.clone(), bytes], small()) {
            read_back(&image).expect("a valid image");
        }
    }

    #[test]
    fn tar_of_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = convert(&[bytes], small());
    }
}

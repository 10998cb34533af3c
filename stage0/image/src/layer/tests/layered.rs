//! Images whose layers have files of their own: the same to whoever reads them as images of one file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use proptest::prelude::*;

use super::model::{Layers, layers};
use super::tars::Tar;
use super::{bytes_of, convert, read_back, seen};
use crate::erofs::{BLOCK, Writer};
use crate::limits::Limits;

/// A layer as the store keeps it.
#[derive(Clone, Default)]
struct Kept {
    data: Vec<u8>,
    journal: Vec<u8>,
}

impl Kept {
    fn blocks(&self) -> u32 {
        u32::try_from(self.data.len() / BLOCK).expect("a small layer")
    }
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(bytes, 0).expect("write");
    file
}

fn writer(index: &File, limits: Limits) -> Writer {
    let index = index.try_clone().expect("a descriptor");
    Writer::layered(index, file_of(b""), limits).expect("a writer")
}

/// Applies `layers` as they come; gives the index and what is kept of each.
fn recorded(layers: &[Vec<u8>], limits: Limits) -> Result<(Vec<u8>, Vec<Kept>)> {
    let index = file_of(b"");
    let mut writer = writer(&index, limits);
    let mut kept = Vec::new();
    for layer in layers {
        let (data, journal) = (file_of(b""), file_of(b""));
        let (to, notes) = (data.try_clone()?, journal.try_clone()?);
        writer.record_layer(to, notes, |writer| writer.apply_layer(layer.as_slice()))?;
        kept.push(Kept {
            data: bytes_of(&data)?,
            journal: bytes_of(&journal)?,
        });
    }
    writer.finish()?;
    Ok((bytes_of(&index)?, kept))
}

/// Applies layers that are kept; gives the index.
fn replayed(layers: &[Kept], limits: Limits) -> Result<Vec<u8>> {
    let index = file_of(b"");
    let mut writer = writer(&index, limits);
    for layer in layers {
        writer.replay_layer(file_of(&layer.journal), layer.blocks())?;
    }
    writer.finish()?;
    bytes_of(&index)
}

/// What lies behind one another on a disk.
fn laid_out(index: &[u8], layers: &[Kept]) -> Vec<u8> {
    layers.iter().fold(index.to_vec(), |disk, layer| {
        [disk, layer.data.clone()].concat()
    })
}

/// All that an image says of each path, but for the numbers of its inodes; read with its layers as devices.
fn everything(index: &[u8], layers: &[Kept]) -> Vec<String> {
    let devices = layers.iter().filter(|layer| layer.blocks() > 0);
    let devices = devices.map(|layer| SliceImage::new(&layer.data)).collect();
    let image = EroFS::new_with_devices(SliceImage::new(index), devices).expect("an image");
    let entries = image.walk_dir("/").expect("walk");
    let told = entries.map(|entry| {
        let entry = entry.expect("entry");
        let xattrs = image.xattrs_inode(entry.inode).expect("xattrs");
        let (kind, device) = (entry.inode.file_type(), entry.inode.device());
        let mut seen = seen(&image, entry.inode).expect("read");
        seen.inode = 0;
        format!(
            "{:?} {kind:?} {device:?} {xattrs:?} {seen:?}",
            entry.dir_entry.path()
        )
    });
    told.collect()
}

#[test]
fn layers_of_all_kinds_of_content_are_the_same_alone_and_in_one_file() {
    let long = "x".repeat(4060);
    let sparse = Tar::default().pax(&[
        ("GNU.sparse.map", b"0,5000,300000,5"),
        ("GNU.sparse.size", b"1000000"),
        ("GNU.sparse.name", b"sparse"),
    ]);
    let tars = [
        Tar::default()
            .file("whole", &[1; 8192])
            .file("tail", &[2; 9000])
            .file("small", b"3")
            .file("empty", b"")
            .pax(&[("SCHILY.xattr.user.long", &[b'v'; 4000])])
            .file("apart", &[4; 200])
            .pax(&[("linkpath", long.as_bytes())])
            .symlink("link", "x")
            .end(),
        sparse
            .file("x", &[5; 5005])
            .hard_link("again", "whole")
            .end(),
        Tar::default().directory("only").end(),
        Tar::default()
            .file(".wh.tail", b"")
            .file("whole", &[6; 70_000])
            .end(),
    ];
    let (_, single) = convert(&tars, Limits::default()).expect("convert");
    let (index, kept) = recorded(&tars, Limits::default()).expect("layers");
    assert_eq!(
        kept.iter().map(Kept::blocks).collect::<Vec<_>>(),
        [6, 32, 0, 17]
    );
    assert_eq!(everything(&index, &kept), everything(&single, &[]));
    assert!(replayed(&kept, Limits::default()).expect("replay") == index);
    // A kernel that is given one device finds the first layer right behind the index.
    let half = |at: usize| u16::from_le_bytes([index[at], index[at + 1]]);
    let (devices, table) = (half(1024 + 86), usize::from(half(1024 + 88)) * 128);
    let mapped = u32::from_le_bytes(index[table + 68..table + 72].try_into().expect("four"));
    assert_eq!((devices, mapped as usize), (3, index.len() / BLOCK));
    let disk = laid_out(&index, &kept);
    assert!(disk[index.len()..][..8192] == [1; 8192]);
}

#[test]
fn layer_lies_above_others_than_it_was_made_with() {
    let own = Tar::default()
        .file("f", &[7; 5000])
        .hard_link("g", "lower")
        .file(".wh.gone", b"")
        .end();
    let below = |byte| {
        Tar::default()
            .file("lower", &[byte; 9000])
            .file("gone", b"")
            .end()
    };
    let (_, first) = recorded(&[below(1), own.clone()], Limits::default()).expect("layers");
    let (_, other) = recorded(
        &[Tar::default().file("big", &[9; 40_000]).end(), below(2)],
        Limits::default(),
    )
    .expect("layers");
    let stack = [other[0].clone(), other[1].clone(), first[1].clone()];
    let index = replayed(&stack, Limits::default()).expect("replay");
    let tars = [
        Tar::default().file("big", &[9; 40_000]).end(),
        below(2),
        own,
    ];
    let (_, single) = convert(&tars, Limits::default()).expect("convert");
    assert_eq!(everything(&index, &stack), everything(&single, &[]));
}

#[test]
fn hard_link_to_what_no_layer_below_has_is_refused_again() {
    let tars = [
        Tar::default().file("a", b"1").end(),
        Tar::default().hard_link("b", "a").end(),
    ];
    let (_, kept) = recorded(&tars, Limits::default()).expect("layers");
    assert!(replayed(&kept[1..], Limits::default()).is_err());
}

#[test]
fn entry_outside_of_its_layer_is_refused() {
    let tar = Tar::default()
        .file("a", &[1; 9000])
        .file("b", &[2; 200_000]);
    let sparse = Tar::default().pax(&[
        ("GNU.sparse.map", b"0,4096,300000,5"),
        ("GNU.sparse.size", b"1000000"),
    ]);
    for tar in [tar, sparse.file("x", &[5; 4101])] {
        let (_, kept) = recorded(&[tar.end()], Limits::default()).expect("layer");
        let index = file_of(b"");
        let blocks = kept[0].blocks();
        let journal = || file_of(&kept[0].journal);
        assert!(
            writer(&index, Limits::default())
                .replay_layer(journal(), blocks)
                .is_ok()
        );
        let error = writer(&index, Limits::default()).replay_layer(journal(), blocks - 1);
        let error = format!("{:#}", error.expect_err("a block too few"));
        assert!(error.contains("outside of its layer"), "{error}");
    }
}

#[test]
fn limits_hold_for_layers_that_are_kept() {
    let tars = [
        Tar::default().file("a", &[1; 300_000]).end(),
        Tar::default().file("b", &[2; 300_000]).end(),
    ];
    let (_, kept) = recorded(&tars, Limits::default()).expect("layers");
    let small = Limits {
        image_bytes: 500_000,
        ..Limits::default()
    };
    assert!(replayed(&kept[..1], small.clone()).is_ok());
    let error = replayed(&kept, small.clone()).expect_err("too large");
    assert!(
        format!("{error:#}").contains("larger than the limit"),
        "{error:#}"
    );
    assert!(recorded(&tars, small).is_err());
    let few = Limits {
        entries: 1,
        ..Limits::default()
    };
    assert!(replayed(&kept, few).is_err());
}

proptest! {
    #[test]
    fn layers_at_random_are_the_same_alone_and_in_one_file(layers in layers()) {
        let Layers { tars, .. } = Layers::of(&layers);
        let single = convert(&tars, Limits::default());
        let layered = recorded(&tars, Limits::default());
        prop_assert_eq!(single.is_err(), layered.is_err());
        let (Ok((_, single)), Ok((index, kept))) = (single, layered) else { return Ok(()) };
        prop_assert_eq!(everything(&index, &kept), everything(&single, &[]));
        prop_assert!(replayed(&kept, Limits::default()).expect("replay") == index);
    }

    #[test]
    fn journal_of_changed_bytes_is_refused_or_gives_an_image(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let tar = Tar::default().file("a/f", &[1; 9000]).symlink("l", "a").hard_link("h", "a/f").file(".wh.x", b"");
        let (_, mut kept) = recorded(&[tar.end()], Limits::default()).expect("layer");
        let mut plain = Vec::new();
        zstd::Decoder::new(kept[0].journal.as_slice()).expect("zstd").read_to_end(&mut plain).expect("zstd");
        for (at, byte) in changes {
            let at = at.index(plain.len());
            plain[at] = byte;
        }
        kept[0].journal = zstd::encode_all(plain.as_slice(), 1).expect("zstd");
        if let Ok(index) = replayed(&kept, Limits { image_bytes: 8 << 20, ..Limits::default() }) {
            read_back(&laid_out(&index, &[])).ok();
        }
    }
}

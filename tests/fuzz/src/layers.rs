//! Layers of an image, merged into one EROFS file. Input: how many layers, then their tars, all of one size.

use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use image::{Limits, Writer};
use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// Merges the layers and reads what came of it with an independent reader.
pub fn run(input: &[u8]) {
    if let Some(image) = merge(input) {
        read_back(&image).expect("a finished image can be read");
    }
}

fn merge(input: &[u8]) -> Option<Vec<u8>> {
    let (count, tars) = input.split_first()?;
    let mut tars = tars.to_vec();
    sum_headers(&mut tars);
    let layers = usize::from(count % 4) + 1;
    let size = tars.len().div_ceil(layers).next_multiple_of(BLOCK).max(1);
    let output = tempfile::tempfile().expect("a temporary file");
    let scratch = tempfile::tempfile().expect("a temporary file");
    let copy = output.try_clone().expect("a descriptor");
    let mut writer = Writer::new(copy, scratch, limits()).expect("an empty file");
    for tar in tars.chunks(size) {
        writer.apply_layer(tar).ok()?;
    }
    let finished = writer.finish().ok()?;
    assert!(finished.bytes <= limits().image_bytes);
    let mut image = vec![0; usize::try_from(finished.bytes).expect("a small image")];
    output.read_exact_at(&mut image, 0).expect("a whole image");
    Some(image)
}

fn limits() -> Limits {
    Limits {
        image_bytes: 1 << 20,
        input_bytes: 1 << 20,
        entries: 200,
        header_bytes: 4096,
        depth: 16,
        extents: 64,
        ..Limits::default()
    }
}

/// A wrong checksum is found at once: so that other faults are, headers get the right one.
pub(crate) fn sum_headers(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

/// The number of names in the image; every file and link is read.
fn read_back(image: &[u8]) -> Result<usize> {
    let image = EroFS::new(SliceImage::new(image))?;
    let mut names = 0;
    for entry in image.walk_dir("/")? {
        let inode = entry?.inode;
        if inode.is_file() {
            let mut start = Vec::new();
            image
                .open_inode_file(inode)?
                .take(1 << 20)
                .read_to_end(&mut start)?;
        } else if inode.is_symlink() {
            image.read_link_inode(inode)?;
        }
        names += 1;
    }
    Ok(names)
}

/// A tar of entries: name, kind, content or link's target.
pub(crate) fn tar(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        let link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let (target, content) = if link {
            (*content, &[][..])
        } else {
            (&[][..], *content)
        };
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target);
        header.set_cksum();
        builder.append(&header, content).expect("a tar in memory");
    }
    builder.into_inner().expect("a tar in memory")
}

/// Files, links, whiteouts, extended headers and sparse files, in one layer and in two.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    use EntryType::{Directory, Fifo, Link, Regular, Symlink, XHeader};
    let lower = tar(&[
        ("d", Directory, b""),
        ("d/f", Regular, &[7; 700]),
        ("d/l", Symlink, b"/d/../d"),
        ("d/l/h", Link, b"d/f"),
        ("p", Fifo, b""),
    ]);
    let upper = tar(&[
        ("d/.wh.f", Regular, b""),
        ("d/.wh..wh..opq", Regular, b""),
        (
            "x",
            XHeader,
            b"13 mtime=1.5\n30 SCHILY.xattr.user.a=value\n\n",
        ),
        ("n", Regular, b"new"),
    ]);
    let sparse = tar(&[
        (
            "x",
            XHeader,
            b"28 GNU.sparse.map=0,5,100,5\n23 GNU.sparse.size=200\n",
        ),
        ("s", Regular, &[3; 10]),
    ]);
    let mut two = lower.clone();
    two.resize(lower.len().max(upper.len()), 0);
    two.extend(&upper);
    two.resize(lower.len().max(upper.len()) * 2, 0);
    [(0, lower), (1, two), (0, sparse)]
        .into_iter()
        .map(|(count, tars)| [vec![count], tars].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_become_images() {
        let names: Vec<_> = seeds()
            .iter()
            .map(|seed| read_back(&merge(seed).expect("an image")).expect("a valid image"))
            .collect();
        assert_eq!(names, [5, 3, 1]);
    }
}

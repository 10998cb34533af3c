//! Tars built here go through the writer, and the image is read back by an independent reader (crate erofs-rs).

mod hostile;
mod layered;
pub(crate) mod model;
pub(crate) mod tars;
mod whole;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};

use anyhow::Result;
use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;

use crate::erofs::{Finished, Writer};
use crate::limits::Limits;

/// What the reader says of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) time: (i64, u32),
    pub(crate) links: u32,
    pub(crate) inode: u64,
    /// A file's content or a link's target.
    pub(crate) content: Vec<u8>,
}

/// Applies layers and returns the image.
pub(crate) fn convert(layers: &[Vec<u8>], limits: Limits) -> Result<(Finished, Vec<u8>)> {
    let output = tempfile::tempfile()?;
    let mut writer = Writer::new(output.try_clone()?, tempfile::tempfile()?, limits)?;
    for layer in layers {
        writer.apply_layer(layer.as_slice())?;
    }
    let finished = writer.finish()?;
    Ok((finished, bytes_of(&output)?))
}

pub(crate) fn bytes_of(file: &File) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Reads an image back; the root under the empty path.
pub(crate) fn read_back(image: &[u8]) -> Result<BTreeMap<Vec<u8>, Seen>> {
    let image = EroFS::new(SliceImage::new(image))?;
    let root = image.get_inode(image.super_block().root_inode_id())?;
    let mut found = BTreeMap::from([(Vec::new(), seen(&image, root)?)]);
    for entry in image.walk_dir("/")? {
        let entry = entry?;
        let path = entry
            .dir_entry
            .path()
            .as_bytes()
            .strip_prefix(b"/")
            .unwrap_or_default()
            .to_vec();
        found.insert(path, seen(&image, entry.inode)?);
    }
    Ok(found)
}

fn seen(image: &EroFS<SliceImage<'_>>, inode: erofs_rs::types::Inode) -> Result<Seen> {
    let mut content = Vec::new();
    if inode.is_file() {
        image.open_inode_file(inode)?.read_to_end(&mut content)?;
    } else if inode.is_symlink() {
        content = image.read_link_inode(inode)?.as_bytes().to_vec();
    }
    Ok(Seen {
        mode: u16::try_from(inode.permissions().mode() & 0o7777)?,
        owner: (inode.uid(), inode.gid()),
        time: inode.modified_unix(),
        links: inode.nlink(),
        inode: inode.id(),
        content,
    })
}

//! The files of an image in the order in which they can be made again: a folder before what is in it, a file before its further
//! names. Read from the EROFS file by crate erofs-rs, which knows nothing of the writer that made it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use erofs_rs::r#async::EroFS;
use erofs_rs::types::{Inode, Layout};

use super::device::{Device, ready};
use crate::erofs::{BLOCK, Xattrs, chunks};
use crate::store::Image;
use crate::tree::Attributes;

/// Pieces of data that one sparse file is cut into; what comes after is one piece.
const PIECES: usize = 64 << 10;

/// The files of one image.
pub struct Files {
    file: File,
    erofs: EroFS<Device>,
}

/// A name in the image, and what it stands for.
#[derive(Clone)]
pub struct Found {
    /// Without a slash before it; empty for the root.
    pub path: Vec<u8>,
    pub shape: Shape,
    pub attributes: Attributes,
    pub xattrs: Xattrs,
    inode: Inode,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Directory,
    File,
    /// Another name of what this path stands for.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

impl Files {
    /// Opens the files of `image`.
    ///
    /// # Errors
    /// If they cannot be read, or are none of an image.
    pub fn of(image: &Image) -> Result<Self> {
        Self::open(&image.rootfs, &image.data)
    }

    /// Opens the EROFS file at `path`, with the files that its table lists.
    ///
    /// # Errors
    /// As for [`of`](Self::of).
    pub fn open(path: &Path, devices: &[PathBuf]) -> Result<Self> {
        let open =
            |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
        let file = open(path)?;
        let image = Device(file.try_clone().context("duplicate a descriptor")?);
        let devices = devices.iter().map(|path| open(path).map(Device));
        let erofs = EroFS::new_with_devices(image, devices.collect::<Result<_>>()?);
        let erofs = ready(erofs);
        let erofs = erofs.with_context(|| format!("read image file {}", path.display()))?;
        Ok(Self { file, erofs })
    }

    /// Visits every name, the root first; a folder's in byte order, each folder with all that is below it.
    ///
    /// # Errors
    /// If the image is damaged; and the visitor's, with the name before them.
    pub fn each(&self, mut visit: impl FnMut(&Found) -> Result<()>) -> Result<()> {
        let mut first_names = HashMap::new();
        let root = ready(
            self.erofs
                .get_inode(self.erofs.super_block().root_inode_id()),
        )
        .context("read the root of the image")?;
        visit(&self.found(Vec::new(), root, &mut first_names)?)?;
        let mut walk = ready(self.erofs.walk_dir("/")).context("read the root of the image")?;
        while let Some(entry) = ready(walk.next_entry()) {
            let entry = entry.context("read a folder of the image")?;
            let path = entry.dir_entry.path();
            let path = path
                .as_bytes()
                .strip_prefix(b"/")
                .unwrap_or(path.as_bytes());
            let called = || path.escape_ascii().to_string();
            let found = self.found(path.to_vec(), entry.inode, &mut first_names);
            visit(&found.with_context(called)?).with_context(called)?;
        }
        Ok(())
    }

    fn found(
        &self,
        path: Vec<u8>,
        inode: Inode,
        first_names: &mut HashMap<u64, Vec<u8>>,
    ) -> Result<Found> {
        let mut shape = self.shape(inode)?;
        if inode.nlink() > 1 && shape != Shape::Directory {
            match first_names.get(&inode.id()) {
                Some(first) => shape = Shape::HardLink(first.clone()),
                None => drop(first_names.insert(inode.id(), path.clone())),
            }
        }
        let (mtime, mtime_ns) = inode.modified_unix();
        Ok(Found {
            path,
            shape,
            attributes: Attributes {
                permissions: u16::try_from(inode.permissions().mode() & 0o7777)?,
                uid: inode.uid(),
                gid: inode.gid(),
                mtime,
                mtime_ns,
            },
            xattrs: ready(self.erofs.xattrs_inode(inode)).context("read extended attributes")?,
            inode,
        })
    }

    fn shape(&self, inode: Inode) -> Result<Shape> {
        let kind = inode.file_type();
        let (major, minor) = inode.device().unwrap_or_default();
        Ok(if kind.is_dir() {
            Shape::Directory
        } else if kind.is_symlink() {
            let target = ready(self.erofs.read_link_inode(inode)).context("read a link")?;
            Shape::Symlink(target.into_vec())
        } else if kind.is_char_device() {
            Shape::Character(major, minor)
        } else if kind.is_block_device() {
            Shape::Block(major, minor)
        } else if kind.is_fifo() {
            Shape::Fifo
        } else if kind.is_socket() {
            Shape::Socket
        } else {
            Shape::File
        })
    }

    /// Reads a file from byte `offset` on.
    pub fn content<'a>(&'a self, found: &Found, offset: u64) -> impl Read + 'a {
        Content {
            files: self,
            inode: found.inode,
            offset,
        }
    }

    /// The pieces of a file that are not zeros, offset and length each, if it was stored with holes; `None` if it is to be read
    /// as a whole.
    ///
    /// # Errors
    /// If the image is damaged.
    pub fn extents(&self, found: &Found) -> Result<Option<Vec<(u64, u64)>>> {
        if found.inode.layout() != Some(Layout::ChunkBased) {
            return Ok(None);
        }
        let metadata = self.erofs.super_block().meta_blk_addr;
        let chunks = chunks(&self.file, metadata, found.inode.id())?;
        let mut pieces = Pieces::default();
        let mut buffer = [0; BLOCK];
        for (begin, is_hole) in (0..found.size())
            .step_by(usize::try_from(chunks.bytes)?)
            .zip(chunks.holes)
        {
            let end = found.size().min(begin + chunks.bytes);
            let mut offset = if is_hole { end } else { begin };
            while offset < end {
                let length = BLOCK.min(usize::try_from(end - offset)?);
                self.content(found, offset)
                    .read_exact(&mut buffer[..length])?;
                pieces.take(offset, &buffer[..length]);
                offset += length as u64;
            }
        }
        Ok(Some(pieces.0))
    }
}

/// Where a file has data, offset and length each.
#[derive(Default)]
struct Pieces(Vec<(u64, u64)>);

impl Pieces {
    /// Takes what the file has at `offset`, behind all before.
    fn take(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let is_full = self.0.len() == PIECES;
        match self.0.last_mut() {
            _ if bytes.iter().all(|byte| *byte == 0) => {}
            Some(last) if is_full || last.0 + last.1 == offset => last.1 = end - last.0,
            _ => self.0.push((offset, end - offset)),
        }
    }
}

impl Found {
    /// Bytes of a file, holes included.
    pub fn size(&self) -> u64 {
        self.inode.data_size()
    }
}

/// A file under way.
struct Content<'a> {
    files: &'a Files,
    inode: Inode,
    offset: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.files.erofs.open_inode_file(self.inode);
        let file = file.map_err(io::Error::other)?;
        let mut filled = 0;
        // The crate gives a block at a time.
        while filled < buffer.len() && self.offset < self.inode.data_size() {
            let read = ready(file.read_at(&mut buffer[filled..], self.offset));
            let read = read.map_err(io::Error::other)?;
            if read == 0 {
                break;
            }
            filled += read;
            self.offset += read as u64;
        }
        Ok(filled)
    }
}

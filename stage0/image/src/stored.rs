//! The files of an image that is in the store, put below those of another that is being made.
//!
//! Called by the import of an ACI with dependencies, on its thread.

use std::io::{self, Read};

use anyhow::{Context, Result};

use crate::erofs::{Body, Content, Extent, Writer, printed};
use crate::outgoing::{Files, Found, Shape};

impl Writer {
    /// Puts all files of an image that is in the store into this one.
    pub(crate) fn apply_stored(&mut self, files: &Files) -> Result<()> {
        self.begin_layer()?;
        files.each(|found| {
            self.count_entry()?;
            self.put_found(files, found)
                .with_context(|| printed(&found.path))
        })
    }

    fn put_found(&mut self, files: &Files, found: &Found) -> Result<()> {
        let mut data;
        let body = match &found.shape {
            Shape::HardLink(first) => return self.link(&found.path, first),
            Shape::File => {
                let whole = || vec![(0, found.size())];
                let pieces = files.extents(found)?.unwrap_or_else(whole);
                let extent = |&(offset, length): &(u64, u64)| Extent { offset, length };
                let extents = pieces.iter().map(extent).collect();
                data = Pieces {
                    files,
                    found,
                    left: pieces.into_iter(),
                    piece: (0, 0),
                };
                Body::File(Content {
                    size: found.size(),
                    extents,
                    data: &mut data,
                })
            }
            Shape::Directory => Body::Directory,
            Shape::Symlink(target) => Body::Symlink(target),
            Shape::Character(major, minor) => Body::Character(*major, *minor),
            Shape::Block(major, minor) => Body::Block(*major, *minor),
            Shape::Fifo => Body::Fifo,
            Shape::Socket => Body::Socket,
        };
        self.put(&found.path, &found.attributes, &found.xattrs, body)
    }
}

/// The data of a file without its holes.
struct Pieces<'a> {
    files: &'a Files,
    found: &'a Found,
    left: std::vec::IntoIter<(u64, u64)>,
    /// What is left of the piece that is being read: offset and length.
    piece: (u64, u64),
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.1 == 0 {
            match self.left.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let (offset, length) = self.piece;
        let part = usize::try_from(length).map_or(buffer.len(), |length| length.min(buffer.len()));
        let count = self
            .files
            .content(self.found, offset)
            .read(&mut buffer[..part])?;
        if count == 0 && part > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.piece = (offset + count as u64, length - count as u64);
        Ok(count)
    }
}

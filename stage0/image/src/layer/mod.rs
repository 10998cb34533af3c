//! A tar applied to the image: as an OCI layer, with whiteouts, or as a plain archive, perhaps with the root file
//! system under a prefix (ACI). Called by the sources of images, on the importing thread.

mod archive;
mod member;
mod numbers;
mod pax;
mod sparse;

#[cfg(test)]
pub(crate) mod tests;

use std::io::Read;

use anyhow::{Context, Result};

pub(crate) use self::archive::Archive;
use crate::erofs::{Body, Content, Writer, printed};
use crate::tree::clean;
pub(crate) use member::{Member, Type};

/// Marks a name of lower layers as gone (OCI image-spec, layer.md, "Whiteouts").
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Marks a directory's lower content as gone; also begins the names of aufs's own files.
const AUFS: &[u8] = b".wh..wh.";
/// The opaque whiteout.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Takes an entry that lies outside the root file system: its clean path and its data.
pub type Outside<'a> = &'a mut dyn FnMut(&[u8], &mut dyn Read) -> Result<()>;

impl Writer {
    /// Applies one layer of an OCI or docker image, an uncompressed tar, above those before it. Reads the input
    /// to its end.
    pub fn apply_layer(&mut self, tar: impl Read) -> Result<()> {
        self.begin_layer()?;
        self.each_member(tar, |writer, member, data| {
            writer.apply_member(member, data)
        })
    }

    /// Applies a tar that holds a root file system under `prefix` (empty: all of it is the root file system):
    /// nothing in it is a whiteout. What lies outside the prefix is handed to `outside`. Reads the input to its
    /// end.
    pub fn apply_archive(
        &mut self,
        tar: impl Read,
        prefix: &str,
        outside: Outside<'_>,
    ) -> Result<()> {
        self.begin_layer()?;
        self.each_member(tar, |writer, mut member, data| {
            member.path = clean(&member.path)?;
            match below(&member.path, prefix.as_bytes()) {
                Some(inside) => member.path = inside.to_vec(),
                None => return outside(&member.path, data),
            }
            if member.kind == Type::HardLink {
                let target = clean(&member.target)?;
                let inside = below(&target, prefix.as_bytes());
                member.target = inside
                    .with_context(|| {
                        format!("hard link to {} leads out of the image", printed(&target))
                    })?
                    .to_vec();
            }
            writer.put_member(member, data)
        })
    }

    fn each_member(
        &mut self,
        tar: impl Read,
        mut apply: impl FnMut(&mut Self, Member, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let limits = self.limits().clone();
        let mut left = self.input_left;
        let mut archive = Archive::new(tar, &limits, &mut left);
        while let Some(member) = archive.next()? {
            self.count_entry()?;
            let path = member.path.clone();
            apply(self, member, &mut archive.data()).with_context(|| printed(&path))?;
        }
        self.input_left = left;
        Ok(())
    }

    fn apply_member(&mut self, member: Member, data: &mut dyn Read) -> Result<()> {
        let path = clean(&member.path)?;
        let (parent, name) = crate::tree::split(&path).unwrap_or_default();
        if name == OPAQUE {
            return self.make_opaque(parent);
        }
        if path
            .split(|&byte| byte == b'/')
            .any(|part| part.starts_with(AUFS))
        {
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT) {
            Some(hidden) => {
                anyhow::ensure!(!matches!(hidden, b"" | b"." | b".."), "whiteout of no name");
                self.white_out(&[parent, hidden].join(&b'/'))
            }
            None => self.put_member(Member { path, ..member }, data),
        }
    }

    fn put_member(&mut self, member: Member, data: &mut dyn Read) -> Result<()> {
        let (major, minor) = member.device;
        let body = match member.kind {
            Type::HardLink => return self.link(&member.path, &member.target),
            Type::File | Type::OldSparse => match member.sparse {
                None => Body::File(Content::whole(member.stored, data)),
                Some(sparse) => {
                    let (size, extents) = sparse.checked(member.stored)?;
                    Body::File(Content {
                        size,
                        extents,
                        data,
                    })
                }
            },
            Type::Symlink => Body::Symlink(&member.target),
            Type::Character => Body::Character(major, minor),
            Type::Block => Body::Block(major, minor),
            Type::Directory => Body::Directory,
            Type::Fifo => Body::Fifo,
        };
        self.put(&member.path, &member.attributes, &member.xattrs, body)
    }
}

/// Whether a name at `path` means something else in a layer, or a folder's above it.
pub(crate) fn hides(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .any(|part| part.starts_with(WHITEOUT))
}

/// A clean path relative to a clean prefix it lies at or below.
pub(crate) fn below<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(prefix)? {
        rest if prefix.is_empty() || rest.is_empty() => Some(rest),
        rest => rest.strip_prefix(b"/"),
    }
}

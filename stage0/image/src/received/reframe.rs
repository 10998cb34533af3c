//! From one tar to another.

use std::io::{Read, Write};

use anyhow::{Result, bail};
use archive::{Entry, Kind};

use super::each;
use crate::layer::Type;

/// Appends the tree that `tar` holds under the name `root` to another tar, by the same name.
///
/// # Errors
/// If it is no tar, holds something else, is larger than an image may be, or the other cannot be written.
pub fn reframe<W: Write>(tar: impl Read, root: &str, to: &mut tar::Builder<W>) -> Result<()> {
    each(tar, root, |member, data| {
        let named = |path: &[u8]| match path {
            b"" => root.as_bytes().to_vec(),
            path => [root.as_bytes(), b"/", path].concat(),
        };
        let target = named(&member.target);
        let (major, minor) = member.device;
        let kind = match member.kind {
            Type::File => Kind::File(member.stored),
            Type::HardLink => Kind::HardLink(&target),
            Type::Symlink => Kind::Symlink(&member.target),
            Type::Character => Kind::Character(major, minor),
            Type::Block => Kind::Block(major, minor),
            Type::Directory => Kind::Directory,
            Type::Fifo => Kind::Fifo,
            Type::OldSparse => bail!("it is sparse"),
        };
        let attributes = &member.attributes;
        let entry = Entry {
            path: &named(&member.path),
            kind,
            mode: attributes.permissions.into(),
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: (attributes.mtime, attributes.mtime_ns),
            xattrs: &member.xattrs,
        };
        Ok(entry.append(to, data)?)
    })
}

//! From one tar to another.

use std::io::{Read, Write};

use anyhow::Result;
use archive::{Entry, Kind};

use super::each;

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
        let kind = match member.written()? {
            Kind::HardLink(_) => Kind::HardLink(&target),
            kind => kind,
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

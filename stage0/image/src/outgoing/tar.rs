//! The files of an image as a tar: as a layer of an OCI image, or below a folder as in an ACI. The same image gives the same bytes.

use std::io::{self, Read, Write, empty, repeat};

use anyhow::Result;
use archive::{Entry, Kind, SparseMap};
use tar::Builder;

use super::files::{Files, Found, Shape};
use crate::erofs::Losses;
use crate::layer::hides;

/// Where an ACI keeps the files.
const ROOTFS: &[u8] = b"rootfs";

/// How the names in the tar are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A layer: the names as they are, of which some mean something else.
    Layer,
    /// Below `rootfs`, where every name is one.
    Aci,
}

/// Appends the files to `tar`; gives what had no place in it.
///
/// # Errors
/// If the image is damaged, or the tar cannot be written.
pub fn append<W: Write>(files: &Files, form: Form, tar: &mut Builder<W>) -> Result<Losses> {
    let mut losses = Losses::default();
    files.each(|found| {
        match reason_against(found, form) {
            Some(reason) => losses.add(&found.path, reason),
            None => append_one(files, found, form, tar)?,
        }
        Ok(())
    })?;
    Ok(losses)
}

fn reason_against(found: &Found, form: Form) -> Option<&'static str> {
    if found.shape == Shape::Socket {
        Some("a tar holds no sockets")
    } else if form == Form::Layer && hides(&found.path) {
        Some("in a layer its name would take another file away")
    } else {
        None
    }
}

fn append_one<W: Write>(
    files: &Files,
    found: &Found,
    form: Form,
    tar: &mut Builder<W>,
) -> Result<()> {
    let (link, map);
    let mut data: Box<dyn Read> = Box::new(empty());
    let kind = match &found.shape {
        Shape::Directory => Kind::Directory,
        Shape::File => match files.extents(found)? {
            Some(pieces) => {
                map = SparseMap::new(found.size(), &pieces);
                data = Box::new(Pieces::new(files, found, pieces, form));
                match form {
                    Form::Layer => Kind::File(found.size()),
                    Form::Aci => Kind::Sparse(&map),
                }
            }
            None => {
                data = Box::new(files.content(found, 0));
                Kind::File(found.size())
            }
        },
        Shape::HardLink(first) => {
            link = name(first, form);
            Kind::HardLink(&link)
        }
        Shape::Symlink(target) => Kind::Symlink(target),
        Shape::Character(major, minor) => Kind::Character(*major, *minor),
        Shape::Block(major, minor) => Kind::Block(*major, *minor),
        Shape::Fifo | Shape::Socket => Kind::Fifo,
    };
    let entry = Entry {
        path: &name(&found.path, form),
        kind,
        mode: found.attributes.permissions.into(),
        uid: found.attributes.uid,
        gid: found.attributes.gid,
        mtime: (found.attributes.mtime, found.attributes.mtime_ns),
        xattrs: &found.xattrs,
    };
    Ok(entry.append(tar, data)?)
}

/// What `path` is called in the tar.
fn name(path: &[u8], form: Form) -> Vec<u8> {
    match (form, path) {
        (Form::Layer, b"") => b"./".to_vec(),
        (Form::Layer, path) => path.to_vec(),
        (Form::Aci, b"") => ROOTFS.to_vec(),
        (Form::Aci, path) => [ROOTFS, b"/", path].concat(),
    }
}

/// Reads the pieces of a file one after another, for a layer with the zeros before each: "Sparse files SHOULD NOT be used" there
/// (OCI image-spec, layer.md), and podman cannot save a layer that has one.
struct Pieces<'a> {
    files: &'a Files,
    found: &'a Found,
    form: Form,
    position: u64,
    left: std::vec::IntoIter<(u64, u64)>,
    now: Box<dyn Read + 'a>,
}

impl<'a> Pieces<'a> {
    fn new(files: &'a Files, found: &'a Found, pieces: Vec<(u64, u64)>, form: Form) -> Self {
        Self {
            files,
            found,
            form,
            position: 0,
            left: pieces.into_iter(),
            now: Box::new(empty()),
        }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.now.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some((offset, length)) = self.left.next() else {
                return Ok(0);
            };
            let gap = match self.form {
                Form::Layer => offset - self.position,
                Form::Aci => 0,
            };
            self.position = offset + length;
            let piece = self.files.content(self.found, offset).take(length);
            self.now = Box::new(repeat(0).take(gap).chain(piece));
        }
    }
}

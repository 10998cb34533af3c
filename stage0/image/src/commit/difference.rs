//! The layer that makes one tree of another: of a tree that comes as a tar, what an image has not just so, and whiteouts for what the
//! tree has no more. Both come in one order, folders before what is in them and names of a folder by their bytes, so that neither
//! is kept.
//!
//! It is the trees that are compared, not the writable layer that is read: an overlay shows a file under all of its names when
//! it was written to by one of them, and its layer has only that one. A file that has a new name and is otherwise as it was is
//! a hard link into the layers below, so that the layer is whole only above them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write, empty};

use anyhow::{Context, Result, bail, ensure};
use archive::{Entry, Kind, Xattrs};
use tar::Builder;

use super::before::Before;
use crate::erofs::Losses;
use crate::layer::{Member, Type, WHITEOUT, below, hides};
use crate::outgoing::{Files, Found, Shape};
use crate::received::each;

/// Bytes of two files that are compared at a time.
const PIECE: usize = 64 << 10;

/// Writes the layer that makes of `base`, or of nothing, the tree that `tar` holds under the name `root`; gives what has no place
/// in a layer.
///
/// # Errors
/// If it is no tar of such a tree, the base is damaged, or the layer cannot be written.
pub fn difference(
    base: Option<&Files>,
    tar: impl Read,
    root: &str,
    layer: impl Write,
) -> Result<Losses> {
    Before::of(base, |before| {
        let mut difference = Difference {
            base,
            before,
            layer: Builder::new(layer),
            last: None,
            hidden: None,
            put: HashSet::new(),
            hasher: RandomState::new(),
            losses: Losses::default(),
        };
        each(tar, root, |member, data| difference.take(member, data))?;
        difference.white_out(|_| true)?;
        let mut layer = difference.layer.into_inner().context("end the layer")?;
        layer.flush().context("end the layer")?;
        Ok(difference.losses)
    })
}

struct Difference<'a, W: Write> {
    base: Option<&'a Files>,
    before: Before,
    layer: Builder<W>,
    /// The path before.
    last: Option<Vec<u8>>,
    /// A path of the base at and below which nothing is left.
    hidden: Option<Vec<u8>>,
    /// The hashes of the paths that the layer has files at: by one of them a further name finds a file in the layer.
    put: HashSet<u64>,
    hasher: RandomState,
    losses: Losses,
}

impl<W: Write> Difference<'_, W> {
    fn take(&mut self, member: &Member, data: &mut dyn Read) -> Result<()> {
        let path = &member.path;
        let is_next = match &self.last {
            None => path.is_empty(),
            Some(last) => order(last).lt(order(path)),
        };
        ensure!(is_next, "it is not in its place in the tree");
        self.last = Some(path.clone());
        self.white_out(|found| order(&found.path).lt(order(path)))?;
        let Some(found) = self.before.next_if(|found| found.path == *path)? else {
            return self.put(member, data);
        };
        if found.shape == Shape::Directory && member.kind != Type::Directory {
            self.hidden = Some(path.clone());
        }
        match (self.is_unchanged(member, &found), self.base) {
            (false, _) => self.put(member, data),
            (true, Some(base)) if found.shape == Shape::File => {
                match compare(&mut base.content(&found, 0), data)? {
                    None => Ok(()),
                    Some((same, piece)) => {
                        let begin = base.content(&found, 0).take(same);
                        self.put(member, &mut begin.chain(&*piece).chain(data))
                    }
                }
            }
            (true, _) => Ok(()),
        }
    }

    /// Whether it is what the base has there, but for a file's data.
    fn is_unchanged(&self, member: &Member, found: &Found) -> bool {
        let is_same = match (&found.shape, member.kind) {
            // What is said of a file is said with its first name.
            (Shape::HardLink(first), Type::HardLink) => {
                return *first == member.target && !self.put.contains(&self.hash(first));
            }
            (Shape::File, Type::File) => found.size() == member.stored,
            (Shape::Symlink(target), Type::Symlink) => *target == member.target,
            (Shape::Character(major, minor), Type::Character)
            | (Shape::Block(major, minor), Type::Block) => (*major, *minor) == member.device,
            (Shape::Directory, Type::Directory) | (Shape::Fifo, Type::Fifo) => true,
            _ => false,
        };
        is_same && found.attributes == member.attributes && found.xattrs == member.xattrs
    }

    /// Hides the next files of the base for as long as they are `gone`.
    fn white_out(&mut self, gone: impl Fn(&Found) -> bool) -> Result<()> {
        while let Some(found) = self.before.next_if(&gone)? {
            let is_below = |hidden: &Vec<u8>| below(&found.path, hidden).is_some();
            if self.hidden.as_ref().is_some_and(is_below) {
                continue;
            }
            if hides(&found.path) {
                self.losses.add(&found.path, "a layer cannot take it away");
                continue;
            }
            let name = found.path.iter().rposition(|byte| *byte == b'/');
            let (folder, name) = found.path.split_at(name.map_or(0, |slash| slash + 1));
            let path = [folder, WHITEOUT, name].concat();
            let entry = Entry {
                path: &path,
                kind: Kind::File(0),
                mode: 0o600,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
                xattrs: &Xattrs::new(),
            };
            entry.append(&mut self.layer, empty())?;
            self.hidden = Some(found.path);
        }
        Ok(())
    }

    fn put(&mut self, member: &Member, data: impl Read) -> Result<()> {
        let kind = member.written()?;
        if hides(&member.path) || matches!(kind, Kind::HardLink(first) if hides(first)) {
            let why = "in a layer its name would take another file away";
            self.losses.add(&member.path, why);
            return Ok(());
        }
        if matches!(kind, Kind::File(_) | Kind::Symlink(_)) {
            self.put.insert(self.hash(&member.path));
        }
        let attributes = &member.attributes;
        let entry = Entry {
            path: match &*member.path {
                b"" => b"./",
                path => path,
            },
            kind,
            mode: attributes.permissions.into(),
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: (attributes.mtime, attributes.mtime_ns),
            xattrs: &member.xattrs,
        };
        Ok(entry.append(&mut self.layer, data)?)
    }

    fn hash(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }
}

/// What paths are ordered by.
fn order(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
}

/// Reads `after` to its end, or to where it is not what `before` is, which is as long: then how many bytes are the same, and the
/// piece of `after` that follows them.
fn compare(before: &mut dyn Read, after: &mut dyn Read) -> Result<Option<(u64, Vec<u8>)>> {
    let (mut same, mut piece, mut expected) = (0, vec![0; PIECE], vec![0; PIECE]);
    loop {
        let length = after.read(&mut piece)?;
        if length == 0 {
            return Ok(None);
        }
        let expected = &mut expected[..length];
        match before.read_exact(expected) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!("the image that the app ran from is damaged: a file of it is cut short")
            }
            read => read.context("read the image that the app ran from")?,
        }
        if piece[..length] != *expected {
            piece.truncate(length);
            return Ok(Some((same, piece)));
        }
        same += length as u64;
    }
}

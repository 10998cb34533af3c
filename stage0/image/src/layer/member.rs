//! One entry of a tar, put together from its header block and the extended headers before it. Made by the tar
//! reader; all that is in it is a stranger's claim, checked here as far as one entry can be.

use anyhow::{Context, Result, bail, ensure};
use archive::Kind;

use super::numbers;
use super::pax;
use super::sparse::Sparse;
use crate::erofs::Xattrs;
use crate::limits::Limits;
use crate::tree::Attributes;

/// What the type flag of an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    OldSparse,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) kind: Type,
    /// Bytes of data that follow in the tar.
    pub(crate) stored: u64,
    pub(crate) attributes: Attributes,
    pub(crate) xattrs: Xattrs,
    pub(crate) device: (u32, u32),
    pub(super) sparse: Option<Sparse>,
}

/// What extended headers said about the entry to come.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Xattrs,
    sparse: Option<Sparse>,
    sparse_name: Option<Vec<u8>>,
}

impl Extended {
    /// Takes the records of a PAX header.
    pub(super) fn take_pax(&mut self, bytes: &[u8], limits: &Limits) -> Result<()> {
        for record in pax::records(bytes) {
            let (key, value) = record?;
            self.take_record(key, value, limits)
                .with_context(|| format!("extended header {}", key.escape_ascii()))?;
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        let number = || pax::decimal(value).context("not a number");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(pax::time(value).context("not a time")?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse
                        .get_or_insert_default()
                        .record(key, value, limits.extents)?;
                }
            }
        }
        Ok(())
    }
}

impl Member {
    /// What it is in a tar that is written; the target of a hard link as it stands here.
    ///
    /// # Errors
    /// If it is sparse, in the old form.
    pub(crate) fn written(&self) -> Result<Kind<'_>> {
        let (major, minor) = self.device;
        Ok(match self.kind {
            Type::File => Kind::File(self.stored),
            Type::HardLink => Kind::HardLink(&self.target),
            Type::Symlink => Kind::Symlink(&self.target),
            Type::Character => Kind::Character(major, minor),
            Type::Block => Kind::Block(major, minor),
            Type::Directory => Kind::Directory,
            Type::Fifo => Kind::Fifo,
            Type::OldSparse => bail!("it is sparse"),
        })
    }

    /// Whether its data leaves holes out.
    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse.is_some() || self.kind == Type::OldSparse
    }

    /// Puts an entry together.
    pub(super) fn new(header: &tar::Header, extended: Extended) -> Result<Self> {
        let old = header.as_old();
        let path = extended
            .sparse_name
            .or(extended.path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let target = extended
            .target
            .or_else(|| header.link_name_bytes().map(Into::into))
            .unwrap_or_default();
        let kind = kind(old.linkflag[0], &path)?;
        let in_header = numbers::size(&old.size).context("size is no number")?;
        let has_data = matches!(kind, Type::File | Type::OldSparse);
        let attributes = Attributes {
            permissions: u16::try_from(
                numbers::size(&old.mode).context("mode is no number")? & 0o7777,
            )?,
            uid: owner(extended.uid, &old.uid).context("user id")?,
            gid: owner(extended.gid, &old.gid).context("group id")?,
            mtime: extended.mtime.map_or_else(
                || numbers::number(&old.mtime).context("time is no number"),
                |time| Ok(time.0),
            )?,
            mtime_ns: extended.mtime.map_or(0, |time| time.1),
        };
        Ok(Self {
            device: device(header, kind)?,
            stored: if has_data {
                extended.size.unwrap_or(in_header)
            } else {
                0
            },
            path,
            target,
            kind,
            attributes,
            xattrs: extended.xattrs,
            sparse: extended.sparse.filter(|_| kind == Type::File),
        })
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Type> {
    Ok(match flag {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 if path.ends_with(b"/") => Type::Directory,
        0 | b'0' | b'7' => Type::File,
        b'1' => Type::HardLink,
        b'2' => Type::Symlink,
        b'3' => Type::Character,
        b'4' => Type::Block,
        b'5' => Type::Directory,
        b'6' => Type::Fifo,
        b'S' => Type::OldSparse,
        _ => bail!("entry of unknown type {:?}", char::from(flag)),
    })
}

/// An id; the largest 32-bit number means "none" to Linux and cannot own a file.
fn owner(extended: Option<u64>, field: &[u8]) -> Result<u32> {
    let id = extended.map_or_else(|| numbers::size(field).context("not a number"), Ok)?;
    let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
    id.context("larger than Linux can hold")
}

fn device(header: &tar::Header, kind: Type) -> Result<(u32, u32)> {
    if !matches!(kind, Type::Character | Type::Block) {
        return Ok((0, 0));
    }
    let bytes = header.as_bytes();
    ensure!(
        &bytes[257..262] == b"ustar",
        "device without a device number"
    );
    let part = |field| {
        numbers::size(field)
            .and_then(|number| u32::try_from(number).ok())
            .context("device number is no number")
    };
    Ok((part(&bytes[329..337])?, part(&bytes[337..345])?))
}

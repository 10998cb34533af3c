//! What is known of one node, and its form in the scratch file. Made by the EROFS writer when an entry comes by,
//! read back when the metadata is written.

use anyhow::Result;

use crate::scratch::{Handle, Scratch};

/// Ownership, permissions, time and encoded extended attributes as the image gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The lower 12 bits of a mode.
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) mtime_ns: u32,
}

impl Attributes {
    /// A directory that no layer describes.
    pub(crate) fn missing_parent() -> Self {
        Self {
            permissions: 0o755,
            ..Self::default()
        }
    }
}

/// File types, numbered as directory entries on disk number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    File = 1,
    Directory = 2,
    Character = 3,
    Block = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

impl Kind {
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u32) -> Self {
        match number {
            2 => Self::Directory,
            3 => Self::Character,
            4 => Self::Block,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => Self::File,
        }
    }

    /// The S_IFMT bits of a mode.
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Character => 0o020_000,
            Self::Block => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Symlink => 0o120_000,
        }
    }

    fn from_mode(mode: u16) -> Self {
        let kinds = [
            Self::Directory,
            Self::Character,
            Self::Block,
            Self::Fifo,
            Self::Socket,
            Self::Symlink,
        ];
        kinds
            .into_iter()
            .find(|kind| kind.mode_bits() == mode & 0o170_000)
            .unwrap_or(Self::File)
    }
}

/// Where a node's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// No content; `start` is the device number of a device.
    Empty,
    /// Whole blocks from `start` on.
    Plain,
    /// Whole blocks from `start` on, the rest in the scratch file.
    Inline,
    /// Chunks of 2^`chunk_bits` bytes, their block numbers (4 bytes each) in the scratch file.
    Chunked,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) mtime_ns: u32,
    pub(crate) size: u64,
    pub(crate) form: Form,
    pub(crate) chunk_bits: u8,
    pub(crate) start: u32,
    /// The last bytes, the chunk list or the link's target.
    pub(crate) extra: Handle,
    pub(crate) extra_bytes: u32,
    /// Extended attributes as they lie on disk.
    pub(crate) xattrs: Handle,
    pub(crate) xattr_bytes: u32,
}

/// Content lies in blocks of that size.
const BLOCK_BYTES: u64 = 4096;

/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = 52;

impl Record {
    pub(crate) fn new(
        kind: Kind,
        attributes: &Attributes,
        xattrs: Handle,
        xattr_bytes: u32,
    ) -> Self {
        Self {
            mode: kind.mode_bits() | attributes.permissions & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            mtime_ns: attributes.mtime_ns,
            size: 0,
            form: Form::Empty,
            chunk_bits: 0,
            start: 0,
            extra: Handle::NONE,
            extra_bytes: 0,
            xattrs,
            xattr_bytes,
        }
    }

    pub(crate) fn directory(attributes: &Attributes, xattrs: Handle, xattr_bytes: u32) -> Self {
        Self::new(Kind::Directory, attributes, xattrs, xattr_bytes)
    }

    pub(crate) fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }

    /// How many blocks of its own the content has from `start` on, where it has no list of chunks.
    pub(crate) fn blocks(&self) -> u64 {
        match self.form {
            Form::Plain => self.size.div_ceil(BLOCK_BYTES),
            Form::Inline => self.size / BLOCK_BYTES,
            Form::Empty | Form::Chunked => 0,
        }
    }

    /// How much of `extra` lies behind the inode on disk: all, but for content that has blocks of its own.
    pub(crate) fn behind_bytes(&self) -> u32 {
        if self.form == Form::Plain {
            0
        } else {
            self.extra_bytes
        }
    }

    pub(super) fn append(&self, scratch: &mut Scratch) -> Result<Handle> {
        scratch.append(&[&self.encode()])
    }

    pub(super) fn read(scratch: &Scratch, at: Handle) -> Result<Self> {
        let mut bytes = [0; RECORD_BYTES];
        scratch.read(at, 0, &mut bytes)?;
        Ok(Self::decode(&bytes))
    }

    /// The record as bytes. Its handles mean something to the scratch file alone that they are of.
    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let form = match self.form {
            Form::Empty => 0,
            Form::Plain => 1,
            Form::Inline => 2,
            Form::Chunked => 3,
        };
        let mut bytes = [0; RECORD_BYTES];
        bytes[..2].copy_from_slice(&self.mode.to_le_bytes());
        (bytes[2], bytes[3]) = (form, self.chunk_bits);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(4, &self.uid.to_le_bytes());
        put(8, &self.gid.to_le_bytes());
        put(12, &self.mtime_ns.to_le_bytes());
        put(16, &self.mtime.to_le_bytes());
        put(24, &self.size.to_le_bytes());
        put(32, &self.start.to_le_bytes());
        put(36, &self.extra.0.to_le_bytes());
        put(40, &self.extra_bytes.to_le_bytes());
        put(44, &self.xattrs.0.to_le_bytes());
        put(48, &self.xattr_bytes.to_le_bytes());
        bytes
    }

    /// What [`encode`](Self::encode) made.
    pub(crate) fn decode(bytes: &[u8; RECORD_BYTES]) -> Self {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let form = match bytes[2] {
            1 => Form::Plain,
            2 => Form::Inline,
            3 => Form::Chunked,
            _ => Form::Empty,
        };
        Self {
            mode: u16::from_le_bytes([bytes[0], bytes[1]]),
            form,
            chunk_bits: bytes[3],
            uid: u32_at(4),
            gid: u32_at(8),
            mtime_ns: u32_at(12),
            mtime: u64_at(16).cast_signed(),
            size: u64_at(24),
            start: u32_at(32),
            extra: Handle(u32_at(36)),
            extra_bytes: u32_at(40),
            xattrs: Handle(u32_at(44)),
            xattr_bytes: u32_at(48),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_read_back_is_the_same() {
        let attributes = Attributes {
            permissions: 0o6755,
            uid: u32::MAX - 1,
            gid: 7,
            mtime: -5,
            mtime_ns: 999_999_999,
        };
        let mut record = Record::new(Kind::Symlink, &attributes, Handle(9), 24);
        (record.size, record.form, record.chunk_bits, record.start) =
            (u64::MAX - 3, Form::Chunked, 16, 77);
        (record.extra, record.extra_bytes) = (Handle(5), 400);
        let mut scratch = Scratch::new(tempfile::tempfile().expect("temporary file"));
        let at = record.append(&mut scratch).expect("append");
        assert_eq!(Record::read(&scratch, at).expect("read"), record);
        assert_eq!(record.kind(), Kind::Symlink);
    }
}

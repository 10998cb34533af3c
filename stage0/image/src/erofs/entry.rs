//! Attributes and content of one entry on their way into the image, and the blocks of one that is hidden on their way back.

use anyhow::{Result, bail, ensure};

use super::content::{self, Content, chunks_of};
use super::spec::{BLOCK, INODE_BYTES};
use super::{Writer, Xattrs, inode, printed, xattr};
use crate::scratch::Handle;
use crate::tree::{Attributes, Form, Kind, Record};

/// Longest target of a symbolic link (PATH_MAX without its zero byte).
const TARGET_MAX: usize = 4095;

/// What an entry is.
pub(crate) enum Body<'a> {
    Directory,
    File(Content<'a>),
    Symlink(&'a [u8]),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

impl Body<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory => Kind::Directory,
            Self::File(_) => Kind::File,
            Self::Symlink(_) => Kind::Symlink,
            Self::Character(..) => Kind::Character,
            Self::Block(..) => Kind::Block,
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
        }
    }
}

impl Writer {
    /// Stores attributes and content of an entry.
    pub(super) fn record(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        xattrs: &Xattrs,
        body: Body<'_>,
    ) -> Result<Record> {
        let mut lost = Vec::new();
        let encoded = xattr::encode(xattrs, |name, why| {
            lost.push(format!("attribute {}: {why}", printed(name)));
        });
        lost.iter().for_each(|what| self.lose(path, what));
        ensure!(
            encoded.len() <= self.limits.xattr_bytes,
            "extended attributes take more than {} bytes",
            self.limits.xattr_bytes
        );
        let stored = if encoded.is_empty() {
            Handle::NONE
        } else {
            self.tree.scratch.append(&[&encoded])?
        };
        let mut record = Record::new(
            body.kind(),
            attributes,
            stored,
            u32::try_from(encoded.len())?,
        );
        match body {
            Body::File(content) => self.store_file(content, &mut record)?,
            Body::Symlink(target) => self.store_target(target, &mut record)?,
            Body::Character(major, minor) | Body::Block(major, minor) => {
                match inode::device_number(major, minor) {
                    Some(number) => record.start = number,
                    None => bail!("device number {major}:{minor} is beyond what Linux can hold"),
                }
            }
            Body::Directory | Body::Fifo | Body::Socket => {}
        }
        self.blocks.wait(inode::inode_bytes(&record))?;
        Ok(record)
    }

    fn store_file(&mut self, content: Content<'_>, record: &mut Record) -> Result<()> {
        ensure!(
            content.size <= self.limits.file_bytes,
            "file of {} bytes is larger than the limit of {}",
            content.size,
            self.limits.file_bytes
        );
        content::store(content, record, &mut self.blocks, &mut self.tree.scratch)
    }

    fn store_target(&mut self, target: &[u8], record: &mut Record) -> Result<()> {
        ensure!(!target.is_empty(), "symbolic link to nowhere");
        ensure!(
            target.len() <= TARGET_MAX.min(self.limits.path_bytes),
            "target of {} bytes is too long",
            target.len()
        );
        ensure!(!target.contains(&0), "target contains a zero byte");
        // Linux makes all symbolic links so, whatever a tar says.
        record.mode = Kind::Symlink.mode_bits() | 0o777;
        record.size = target.len() as u64;
        record.extra_bytes = u32::try_from(target.len())?;
        record.extra = self.tree.scratch.append(&[target])?;
        record.form = Form::Inline;
        if INODE_BYTES + usize::try_from(record.xattr_bytes)? + target.len() > BLOCK {
            record.form = Form::Plain;
            record.start = self.blocks.take(1)?;
            self.blocks.write(u64::from(record.start), target)?;
        }
        Ok(())
    }

    /// Gives the blocks of nodes that have lost their last name back to the file system.
    pub(super) fn give_back(&mut self) -> Result<()> {
        for at in self.tree.take_released() {
            let record = self.tree.released_record(at)?;
            if record.form == Form::Chunked {
                let list = self.tree.scratch.bytes(record.extra, record.extra_bytes)?;
                for (first, blocks) in chunks_of(&record, &list) {
                    self.dead_bytes += self.blocks.give_back(first, blocks)?;
                }
            }
            self.dead_bytes += self.blocks.give_back(record.start, record.blocks())?;
        }
        Ok(())
    }
}

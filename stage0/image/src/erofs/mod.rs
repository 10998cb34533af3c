//! The streaming EROFS writer: layers go in bottom-up, one EROFS file comes out. File data is appended while it
//! streams, metadata follows, the superblock comes last. Called by the image store, by the layer reader and by
//! the folder walk, all on the importing thread. It never unpacks anything on the host.
//!
//! Or each layer's data goes into a file of its own, which other images can use, too (`layered`); the EROFS file is then the
//! index of these: it is to be read as if their data followed it.

mod blocks;
mod chunks;
mod content;
mod devices;
mod directory;
mod emission;
mod inode;
mod journal;
mod layered;
mod metadata;
mod place;
mod spec;
mod superblock;
mod window;
mod xattr;

use std::fs::File;

use anyhow::{Context, Result, bail, ensure};

use crate::limits::Limits;
use crate::scratch::{Handle, Scratch};
use crate::tree::{Attributes, Form, Kind, NodeId, Record, Tree, clean, split};
use blocks::Blocks;
use content::chunks_of;
use devices::Devices;
use emission::Emission;
use journal::Journal;
use metadata::Metadata;
use spec::{INODE_BYTES, SUPER_OFFSET};
use superblock::Superblock;

pub(crate) use chunks::chunks;
pub(crate) use content::{Content, Extent};
pub(crate) use spec::BLOCK;
pub(crate) use xattr::Xattrs;

/// Longest target of a symbolic link (PATH_MAX without its zero byte).
const TARGET_MAX: usize = 4095;
/// Losses told one by one.
const TOLD_LOSSES: usize = 20;

/// An image on its way into an EROFS file.
pub struct Writer {
    tree: Tree,
    /// Where data go.
    blocks: Blocks,
    /// The image's own file, where layers have files for their data.
    index: Option<File>,
    devices: Devices,
    /// Notes what the layer does that is being read.
    journal: Option<Journal>,
    limits: Limits,
    dead_bytes: u64,
    losses: Losses,
    /// The directory that the last entry lay in, by its path.
    parent: Option<(Vec<u8>, NodeId)>,
    /// Uncompressed bytes still allowed.
    pub(crate) input_left: u64,
    entries_left: u32,
}

/// What an image held and EROFS or overlayfs cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// How many things were left out.
    pub count: u64,
    /// The first of them, each with the entry's name and the reason.
    pub first: Vec<String>,
}

impl Losses {
    /// Notes what could not be kept of the entry at `path`, or that all of it could not.
    pub(crate) fn add(&mut self, path: &[u8], what: &str) {
        self.count += 1;
        if self.first.len() < TOLD_LOSSES {
            self.first.push(format!("{}: {what}", printed(path)));
        }
    }

    /// Says on the log what could not be kept.
    pub(crate) fn tell(&self) {
        for lost in &self.first {
            tracing::warn!("left out: {lost}");
        }
    }
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Size of the EROFS file in bytes, a multiple of 4,096; without what lies in files of layers.
    pub bytes: u64,
    /// Files, directories, links and special files in it.
    pub inodes: u64,
    /// Data that upper layers hid; holes of the file.
    pub dead_bytes: u64,
    /// What could not be kept.
    pub losses: Losses,
}

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
    /// Starts an image in the empty file `output`, open for reading and writing; `scratch` is a second empty file, unlinked by the caller.
    pub fn new(output: File, scratch: File, limits: Limits) -> Result<Self> {
        let size = output.metadata().context("read size of image file")?.len();
        ensure!(size == 0, "image file is not empty");
        let blocks = Blocks::new(output, limits.image_bytes);
        Self::with(blocks, None, scratch, limits)
    }

    fn with(blocks: Blocks, index: Option<File>, scratch: File, limits: Limits) -> Result<Self> {
        Ok(Self {
            tree: Tree::new(Scratch::new(scratch), limits.clone())?,
            blocks,
            index,
            devices: Devices::default(),
            journal: None,
            dead_bytes: 0,
            losses: Losses::default(),
            parent: None,
            input_left: limits.input_bytes,
            entries_left: limits.entries,
            limits,
        })
    }

    /// The limits this image is held to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What comes next lies above everything so far.
    pub(crate) fn begin_layer(&mut self) -> Result<()> {
        self.parent = None;
        self.tree.begin_layer()
    }

    /// Counts an entry of a source, whatever becomes of it.
    pub(crate) fn count_entry(&mut self) -> Result<()> {
        let left = self.entries_left.checked_sub(1);
        self.entries_left =
            left.with_context(|| format!("image has more than {} entries", self.limits.entries))?;
        Ok(())
    }

    /// Puts an entry at `path`; what was there goes, but a directory stays under a directory.
    pub(crate) fn put(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        xattrs: &Xattrs,
        body: Body<'_>,
    ) -> Result<()> {
        self.limits.check_path(path)?;
        let path = clean(path)?;
        ensure!(
            !path.is_empty() || matches!(body, Body::Directory),
            "the root of an image is a directory"
        );
        let record = self.record(&path, attributes, xattrs, body)?;
        if let Some(journal) = &mut self.journal {
            journal.put(&path, &record, &self.tree.scratch, self.blocks.base())?;
        }
        self.place(&path, &record)
    }

    /// Puts what `record` says at the clean `path`.
    fn place(&mut self, path: &[u8], record: &Record) -> Result<()> {
        let Some((parent, name)) = split(path) else {
            return self.tree.set_record(NodeId::ROOT, record);
        };
        let directory = self.parent_directory(parent)?;
        if let Some(entry) = self.tree.lookup(directory, name)? {
            let node = self.tree.node_of(entry);
            if record.kind() == Kind::Directory && self.tree.kind(node) == Kind::Directory {
                self.tree.touch(entry);
                return self.tree.set_record(node, record);
            }
            self.detach(entry)?;
        }
        if record.kind() == Kind::Character && record.start == 0 {
            self.lose(
                path,
                "character device 0:0: overlayfs would take it as a whiteout",
            );
            return Ok(());
        }
        let node = self.tree.add_node(record)?;
        self.tree.attach(directory, name, node)
    }

    /// Gives what lies at `target` the further name `path`.
    pub(crate) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.limits.check_path(path)?;
        self.limits.check_path(target)?;
        let path = clean(path)?;
        let target = clean(target).with_context(|| format!("hard link to {}", printed(target)))?;
        if let Some(journal) = &mut self.journal {
            journal.link(&path, &target)?;
        }
        self.place_link(&path, &target)
    }

    fn place_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let node = self
            .link_target(target)
            .with_context(|| format!("hard link to {}", printed(target)))?;
        let (parent, name) = split(path).context("the root of an image is a directory")?;
        let directory = self.parent_directory(parent)?;
        self.tree.hold(node);
        if let Some(entry) = self.tree.lookup(directory, name)? {
            self.detach(entry)?;
        }
        self.tree.attach(directory, name, node)?;
        self.tree.drop_name(node);
        Ok(())
    }

    fn link_target(&self, target: &[u8]) -> Result<NodeId> {
        let (parent, name) = split(target).context("is a directory")?;
        let directory = self
            .tree
            .find_directory(parent)?
            .context("not in the image")?;
        let entry = self
            .tree
            .lookup(directory, name)?
            .context("not in the image")?;
        let node = self.tree.node_of(entry);
        ensure!(self.tree.kind(node) != Kind::Directory, "is a directory");
        Ok(node)
    }

    /// Hides what lower layers have at `path`.
    pub(crate) fn white_out(&mut self, path: &[u8]) -> Result<()> {
        self.limits.check_path(path)?;
        let path = clean(path)?;
        if let Some(journal) = &mut self.journal {
            journal.white_out(&path)?;
        }
        self.hide(&path)
    }

    fn hide(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path).context("a whiteout of the root")?;
        if let Some(directory) = self.tree.find_directory(parent)? {
            self.parent = None;
            self.tree.white_out(directory, name)?;
            self.give_back()?;
        }
        Ok(())
    }

    /// Hides what lower layers have below the directory at `path`.
    pub(crate) fn make_opaque(&mut self, path: &[u8]) -> Result<()> {
        self.limits.check_path(path)?;
        let path = clean(path)?;
        if let Some(journal) = &mut self.journal {
            journal.make_opaque(&path)?;
        }
        self.hide_below(&path)
    }

    fn hide_below(&mut self, path: &[u8]) -> Result<()> {
        if let Some(directory) = self.tree.find_directory(path)? {
            self.parent = None;
            self.tree.make_opaque(directory);
            self.give_back()?;
        }
        Ok(())
    }

    /// Hides what is not at one of `paths`, or above one.
    pub(crate) fn retain(&mut self, paths: &[String]) -> Result<()> {
        let clean_path = |path: &String| {
            self.limits
                .check_path(path.as_bytes())
                .and_then(|()| clean(path.as_bytes()))
                .with_context(|| format!("path whitelist: {}", printed(path.as_bytes())))
        };
        let clean: Vec<_> = paths.iter().map(clean_path).collect::<Result<_>>()?;
        self.parent = None;
        self.tree.retain(clean.iter().map(Vec::as_slice))?;
        self.give_back()
    }

    /// Notes something that cannot be kept.
    pub(crate) fn lose(&mut self, path: &[u8], what: &str) {
        self.losses.add(path, what);
    }

    /// Writes metadata and superblock.
    pub fn finish(mut self) -> Result<Finished> {
        self.tree.forget_index();
        self.blocks.end_waiting();
        // Where layers have files of their own, these follow the image's.
        let (mut blocks, data) = match self.index.take() {
            None => (self.blocks, 0),
            Some(index) => (
                Blocks::new(index, self.limits.image_bytes),
                self.blocks.next(),
            ),
        };
        let device_table = self.devices.take_table(&mut blocks)?;
        let metadata = Metadata::place(&mut self.tree, &mut blocks)?;
        let base = blocks.take(metadata.blocks())?;
        blocks.check_room(u64::from(data))?;
        let shift = if data > 0 { blocks.next() } else { 0 };
        Emission::new(&self.tree, &blocks, metadata.nids(), base, shift).write_all()?;
        self.devices.write(&blocks, device_table, shift)?;
        let superblock = Superblock {
            root_nid: u16::try_from(metadata.root())?,
            inodes: metadata.inodes,
            blocks: blocks.next(),
            metadata: base,
            has_chunks: metadata.has_chunks,
            devices: self.devices.count()?,
            device_table,
        };
        blocks.set_len(blocks.next())?;
        blocks.write_at(SUPER_OFFSET, &superblock.encode()?)?;
        Ok(Finished {
            bytes: u64::from(blocks.next()) * BLOCK as u64,
            inodes: metadata.inodes,
            dead_bytes: self.dead_bytes,
            losses: self.losses,
        })
    }

    fn parent_directory(&mut self, path: &[u8]) -> Result<NodeId> {
        if let Some((_, directory)) = self.parent.as_ref().filter(|(known, _)| known == path) {
            return Ok(*directory);
        }
        let directory = self.tree.make_directories(path)?;
        self.parent = Some((path.to_vec(), directory));
        Ok(directory)
    }

    /// Hides an entry; known paths may lead elsewhere after it.
    fn detach(&mut self, entry: crate::tree::EntryId) -> Result<()> {
        if matches!(
            self.tree.kind(self.tree.node_of(entry)),
            Kind::Directory | Kind::Symlink
        ) {
            self.parent = None;
        }
        self.tree.detach(entry);
        self.give_back()
    }

    /// Gives the blocks of nodes that have lost their last name back to the file system.
    fn give_back(&mut self) -> Result<()> {
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

    /// Stores attributes and content of an entry.
    fn record(
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
        let behind = u64::from(record.xattr_bytes) + u64::from(record.behind_bytes());
        self.blocks.wait(INODE_BYTES as u64 + behind)?;
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
}

/// A name from an image for people, whatever its bytes.
pub(crate) fn printed(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

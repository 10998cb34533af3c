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
mod entries;
mod entry;
mod inode;
mod journal;
mod layered;
mod losses;
mod metadata;
mod place;
mod spec;
mod superblock;
mod window;
mod xattr;

use std::fs::File;

use anyhow::{Context, Result, ensure};

use crate::limits::Limits;
use crate::scratch::Scratch;
use crate::tree::{NodeId, Tree};
use blocks::Blocks;
use devices::Devices;
use emission::Emission;
use journal::Journal;
use metadata::Metadata;
use spec::SUPER_OFFSET;
use superblock::Superblock;

pub(crate) use chunks::chunks;
pub(crate) use content::{Content, Extent};
pub(crate) use entry::Body;
pub use losses::Losses;
pub(crate) use spec::BLOCK;
pub(crate) use xattr::Xattrs;

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

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Size of the EROFS file in bytes, a multiple of 4,096; without what lies in files of layers.
    pub bytes: u64,
    /// Files, directories, links and special files in it.
    pub inodes: u64,
    /// Data that upper layers hid: holes of the file, but in the files of layers, which others use, too.
    pub dead_bytes: u64,
    /// What could not be kept.
    pub losses: Losses,
}

impl Writer {
    /// Starts an image in the empty file `output`, open for reading and writing; `scratch` is a second empty file, unlinked by the caller.
    pub fn new(output: File, scratch: File, limits: Limits) -> Result<Self> {
        let size = output.metadata().context("read size of image file")?.len();
        ensure!(size == 0, "image file is not empty");
        let blocks = Blocks::new(output, &limits);
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

    /// Notes something that cannot be kept.
    pub(crate) fn lose(&mut self, path: &[u8], what: &str) {
        self.losses.add(path, what);
    }

    /// Writes metadata and superblock.
    pub fn finish(mut self) -> Result<Finished> {
        self.tree.forget_index();
        self.blocks.end_waiting();
        // Where layers have files of their own, these follow the image's.
        let (mut blocks, layers) = match self.index.take() {
            None => (self.blocks, None),
            Some(index) => (Blocks::new(index, &self.limits), Some(self.blocks)),
        };
        let device_table = self.devices.take_table(&mut blocks)?;
        let metadata = Metadata::place(&mut self.tree, &mut blocks)?;
        let base = blocks.take(metadata.blocks())?;
        let shift = layers.as_ref().map_or(0, |_| blocks.next());
        if let Some(layers) = &layers {
            blocks.check_with(layers)?;
        }
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
}

/// A name from an image for people, whatever its bytes.
pub(crate) fn printed(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

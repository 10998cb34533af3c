//! The first of two walks over the finished tree: finds every inode its place. Directories are visited depth first
//! in byte order, so the same tree always gives the same bytes. The second walk is the emission.

use anyhow::{Context, Result};

use super::blocks::Blocks;
use super::directory::Measure;
use super::inode::inode_bytes;
use super::place::Places;
use super::spec::{BLOCK, INODE_BYTES};
use crate::tree::{EntryId, Form, Kind, NAME_MAX, NodeId, Record, Tree};

const UNPLACED: u32 = u32::MAX;

/// Where everything goes.
pub(super) struct Metadata {
    /// Inode number of each node.
    nids: Vec<u32>,
    places: Places,
    pub(super) inodes: u64,
    pub(super) has_chunks: bool,
}

impl Metadata {
    /// Sorts all directories and finds all inodes their places; takes blocks for large directories.
    pub(super) fn place(tree: &mut Tree, blocks: &mut Blocks) -> Result<Self> {
        let nids = vec![UNPLACED; usize::try_from(tree.node_count())?];
        let mut metadata = Self {
            nids,
            places: Places::new(),
            inodes: 0,
            has_chunks: false,
        };
        let mut pending = vec![NodeId::ROOT];
        while let Some(directory) = pending.pop() {
            tree.sort_children(directory)?;
            let record = measured(tree, directory, blocks)?;
            metadata.place_node(directory, &record)?;
            let mut below = Vec::new();
            for entry in tree.children(directory) {
                let node = tree.node_of(entry);
                if tree.kind(node) == Kind::Directory {
                    below.push(node);
                } else if metadata.nids[node.0 as usize] == UNPLACED {
                    metadata.place_node(node, &tree.record(node)?)?;
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(metadata)
    }

    fn place_node(&mut self, node: NodeId, record: &Record) -> Result<()> {
        let bytes = usize::try_from(inode_bytes(record))?;
        self.nids[node.0 as usize] = self.places.take(bytes)?;
        self.inodes += 1;
        self.has_chunks |= record.form == Form::Chunked;
        Ok(())
    }

    /// The root's inode number.
    pub(super) fn root(&self) -> u64 {
        u64::from(self.nids[0])
    }

    /// How many blocks the inodes take.
    pub(super) fn blocks(&self) -> u64 {
        self.places.blocks()
    }

    /// Inode numbers by node.
    pub(super) fn nids(&self) -> &[u32] {
        &self.nids
    }
}

/// Computes a sorted directory's size, takes its whole blocks and notes both in its record.
fn measured(tree: &mut Tree, directory: NodeId, blocks: &mut Blocks) -> Result<Record> {
    let mut measure = Measure::default();
    walk_names(tree, directory, |name, _| {
        measure.add(name);
        Ok(())
    })?;
    let mut record = tree.record(directory)?;
    record.size = measure.bytes();
    let tail = usize::try_from(record.size % BLOCK as u64)?;
    let fits_inode = INODE_BYTES + usize::try_from(record.xattr_bytes)? + tail <= BLOCK;
    (record.form, record.extra_bytes) = if fits_inode && tail > 0 {
        (Form::Inline, u32::try_from(tail)?)
    } else {
        (Form::Plain, 0)
    };
    let whole = if record.form == Form::Plain {
        record.size.div_ceil(BLOCK as u64)
    } else {
        record.size / BLOCK as u64
    };
    record.start = blocks.take(whole)?;
    tree.set_record(directory, &record)?;
    Ok(record)
}

/// Visits a sorted directory's names in byte order, "." and ".." (without an entry) among them.
pub(super) fn walk_names(
    tree: &Tree,
    directory: NodeId,
    mut visit: impl FnMut(&[u8], Option<EntryId>) -> Result<()>,
) -> Result<()> {
    let mut own: &[&[u8]] = &[b".", b".."];
    let mut buffer = [0; 1 + NAME_MAX];
    for entry in tree.children(directory) {
        let name = tree.name(entry, &mut buffer).context("read name")?;
        while let Some((first, rest)) = own.split_first().filter(|(first, _)| **first < name) {
            visit(first, None)?;
            own = rest;
        }
        visit(name, Some(entry))?;
    }
    own.iter().try_for_each(|name| visit(name, None))
}

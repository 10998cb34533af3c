//! Metadata of the finished tree, in two walks: the first finds every inode its place, the second writes them.
//! Directories are visited depth first in byte order, so the same tree always gives the same bytes.

use anyhow::{Context, Result};

use super::blocks::Blocks;
use super::directory::{Encoder, Measure};
use super::inode;
use super::place::Places;
use super::spec::{BLOCK, INODE_BYTES, SLOT_BYTES};
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
        let behind = if record.form == Form::Plain {
            0
        } else {
            record.extra_bytes
        };
        let bytes = INODE_BYTES + usize::try_from(record.xattr_bytes)? + usize::try_from(behind)?;
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

    /// Writes all inodes and directories; the metadata begins at block `base`.
    pub(super) fn write(&self, tree: &Tree, blocks: &Blocks, base: u32) -> Result<()> {
        let mut pending = vec![(NodeId::ROOT, NodeId::ROOT)];
        while let Some((directory, parent)) = pending.pop() {
            let below = self.write_directory(tree, blocks, base, directory, parent)?;
            pending.extend(below.into_iter().rev().map(|child| (child, directory)));
        }
        for (index, &nid) in self.nids.iter().enumerate() {
            let node = NodeId(u32::try_from(index)?);
            if nid != UNPLACED && tree.kind(node) != Kind::Directory {
                let record = tree.record(node)?;
                let behind_bytes = if record.form == Form::Plain {
                    0
                } else {
                    record.extra_bytes
                };
                let behind = tree.scratch.bytes(record.extra, behind_bytes)?;
                self.write_inode(
                    tree,
                    blocks,
                    base,
                    (node, &record, tree.names(node)),
                    &behind,
                )?;
            }
        }
        Ok(())
    }

    /// Writes one directory and its inode; returns the directories in it.
    fn write_directory(
        &self,
        tree: &Tree,
        blocks: &Blocks,
        base: u32,
        directory: NodeId,
        parent: NodeId,
    ) -> Result<Vec<NodeId>> {
        let record = tree.record(directory)?;
        let (mut encoder, mut below) = (Encoder::default(), Vec::new());
        let mut block = u64::from(record.start);
        walk_names(tree, directory, |name, entry| {
            let node = match entry {
                Some(entry) => tree.node_of(entry),
                None if name == b"." => directory,
                None => parent,
            };
            if entry.is_some() && tree.kind(node) == Kind::Directory {
                below.push(node);
            }
            let nid = u64::from(self.nids[node.0 as usize]);
            if let Some(full) = encoder.add(name, nid, tree.kind(node).number()) {
                blocks.write_at(block * BLOCK as u64, &full)?;
                block += 1;
            }
            Ok(())
        })?;
        let mut rest = encoder.finish();
        if record.form == Form::Plain {
            blocks.write_at(block * BLOCK as u64, &rest)?;
            rest.clear();
        }
        let links = u32::try_from(below.len())? + 2;
        self.write_inode(tree, blocks, base, (directory, &record, links), &rest)?;
        Ok(below)
    }

    fn write_inode(
        &self,
        tree: &Tree,
        blocks: &Blocks,
        base: u32,
        (node, record, links): (NodeId, &Record, u32),
        behind: &[u8],
    ) -> Result<()> {
        let mut bytes = inode::encode(record, node.0.wrapping_add(1), links);
        bytes.extend(tree.scratch.bytes(record.xattrs, record.xattr_bytes)?);
        bytes.extend(behind);
        let slot = u64::from(self.nids[node.0 as usize]);
        blocks.write_at(
            u64::from(base) * BLOCK as u64 + slot * SLOT_BYTES as u64,
            &bytes,
        )
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
fn walk_names(
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

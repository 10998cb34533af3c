//! The second walk over the finished tree: writes directories and inodes where the first walk placed them, in
//! the same order, so that the metadata is written nearly in sequence.

use anyhow::Result;

use super::blocks::Blocks;
use super::content::move_chunks;
use super::directory::Encoder;
use super::inode;
use super::metadata::walk_names;
use super::spec::{BLOCK, SLOT_BYTES};
use super::window::Window;
use crate::tree::{Form, Kind, NodeId, Record, Tree};

/// A walk under way.
pub(super) struct Emission<'a> {
    tree: &'a Tree,
    blocks: &'a Blocks,
    window: Window<'a>,
    nids: &'a [u32],
    /// First byte of the metadata.
    base: u64,
    /// What the blocks of files are moved by.
    shift: u32,
    /// By node; a file with several names is written once.
    written: Vec<bool>,
}

impl<'a> Emission<'a> {
    /// The metadata begins at block `base`, files' block 0 is `shift`; `nids` are the inode numbers by node.
    pub(super) fn new(
        tree: &'a Tree,
        blocks: &'a Blocks,
        nids: &'a [u32],
        base: u32,
        shift: u32,
    ) -> Self {
        let base = u64::from(base) * BLOCK as u64;
        Self {
            tree,
            blocks,
            window: Window::new(blocks),
            nids,
            base,
            shift,
            written: vec![false; nids.len()],
        }
    }

    /// Writes all directories and inodes.
    pub(super) fn write_all(mut self) -> Result<()> {
        let mut pending = vec![(NodeId::ROOT, NodeId::ROOT)];
        while let Some((directory, parent)) = pending.pop() {
            let below = self.write_directory(directory, parent)?;
            pending.extend(below.into_iter().rev().map(|child| (child, directory)));
        }
        self.window.finish()
    }

    /// Writes one directory with the inodes of all in it that are no directories; returns those that are.
    fn write_directory(&mut self, directory: NodeId, parent: NodeId) -> Result<Vec<NodeId>> {
        let (tree, blocks) = (self.tree, self.blocks);
        let record = tree.record(directory)?;
        let (mut encoder, mut below) = (Encoder::default(), Vec::new());
        let mut at = u64::from(record.start) * BLOCK as u64;
        walk_names(tree, directory, |name, entry| {
            let own = if name == b"." { directory } else { parent };
            let node = entry.map_or(own, |entry| tree.node_of(entry));
            let kind = tree.kind(node);
            match entry {
                Some(_) if kind == Kind::Directory => below.push(node),
                Some(_) => self.write_node(node)?,
                None => {}
            }
            if let Some(full) =
                encoder.add(name, u64::from(self.nids[node.0 as usize]), kind.number())
            {
                blocks.write_at(at, &full)?;
                at += BLOCK as u64;
            }
            Ok(())
        })?;
        let mut rest = encoder.finish();
        if record.form == Form::Plain {
            blocks.write_at(at, &rest)?;
            rest.clear();
        }
        let links = u32::try_from(below.len())? + 2;
        self.write_inode(directory, &record, links, &rest)?;
        Ok(below)
    }

    fn write_node(&mut self, node: NodeId) -> Result<()> {
        if std::mem::replace(&mut self.written[node.0 as usize], true) {
            return Ok(());
        }
        let record = self.tree.record(node)?;
        let mut behind = self
            .tree
            .scratch
            .bytes(record.extra, record.behind_bytes())?;
        if record.form == Form::Chunked {
            move_chunks(&mut behind, self.shift);
        }
        self.write_inode(node, &record, self.tree.names(node), &behind)
    }

    fn write_inode(
        &mut self,
        node: NodeId,
        record: &Record,
        links: u32,
        behind: &[u8],
    ) -> Result<()> {
        let is_moved = record.kind() != Kind::Directory && record.blocks() > 0;
        let start = record.start + if is_moved { self.shift } else { 0 };
        let mut bytes = inode::encode(record, start, node.0.wrapping_add(1), links);
        bytes.extend(self.tree.scratch.bytes(record.xattrs, record.xattr_bytes)?);
        bytes.extend(behind);
        let slot = u64::from(self.nids[node.0 as usize]);
        self.window
            .write_at(self.base + slot * SLOT_BYTES as u64, &bytes)
    }
}

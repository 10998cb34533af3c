//! The merged tree of all layers so far: directory entries and nodes. Filled by the EROFS writer as layers
//! stream by, read by it once more to write the metadata; importing thread only. It knows nothing of tars or of
//! EROFS. About 40 bytes of memory an entry; names and records lie in the scratch file.

mod children;
mod path;
mod record;
mod remove;
mod retain;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use anyhow::{Context, Result, ensure};
use hashbrown::HashTable;

use crate::limits::Limits;
use crate::scratch::{Handle, Scratch};

pub(crate) use path::{clean, split};
pub(crate) use record::{Attributes, Form, Kind, RECORD_BYTES, Record};

/// Longest name of one directory entry (NAME_MAX).
pub(crate) const NAME_MAX: usize = 255;

/// Layers of one image.
const MAX_LAYERS: u16 = 1024;

/// A node: a file, directory, link or special file, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    /// The image's root directory.
    pub(crate) const ROOT: Self = Self(0);
    const NONE: Self = Self(u32::MAX);
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EntryId(u32);

impl EntryId {
    const NONE: Self = Self(LINK_MASK);
}

struct Entry {
    parent: NodeId,
    /// NONE while the name is hidden; the entry stays in its directory's list to be used again.
    node: NodeId,
    /// In the scratch file: one byte of length, then the name.
    name: Handle,
    hash: u32,
    next: EntryId,
    /// The last layer that put this name there or passed through it.
    layer: u16,
}

/// Kind in the upper 3 bits; below them the first entry of a directory, else the number of names.
struct Node {
    record: Handle,
    link: u32,
}

const LINK_MASK: u32 = (1 << 29) - 1;

/// The tree.
pub(crate) struct Tree {
    entries: Vec<Entry>,
    nodes: Vec<Node>,
    index: HashTable<u32>,
    hasher: RandomState,
    layer: u16,
    /// Directories whose lower content the current layer has hidden already; a second time must cost nothing.
    opaque: HashSet<NodeId>,
    /// Records of nodes that have just lost their last name.
    released: Vec<Handle>,
    limits: Limits,
    pub(crate) scratch: Scratch,
}

impl Tree {
    /// A tree with nothing but a root directory.
    pub(crate) fn new(scratch: Scratch, limits: Limits) -> Result<Self> {
        let mut tree = Self {
            entries: Vec::new(),
            nodes: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            layer: 0,
            opaque: HashSet::new(),
            released: Vec::new(),
            limits,
            scratch,
        };
        tree.add_node(&Record::directory(
            &Attributes::missing_parent(),
            Handle::NONE,
            0,
        ))?;
        Ok(tree)
    }

    /// What comes from here on lies above everything so far.
    pub(crate) fn begin_layer(&mut self) -> Result<()> {
        self.layer += 1;
        self.opaque.clear();
        ensure!(
            self.layer <= MAX_LAYERS,
            "image has more than {MAX_LAYERS} layers"
        );
        Ok(())
    }

    /// Stores a record and makes a node of it that has no name yet.
    pub(crate) fn add_node(&mut self, record: &Record) -> Result<NodeId> {
        let stored = record.append(&mut self.scratch)?;
        let id = u32::try_from(self.nodes.len())?;
        ensure!(
            id <= self.limits.entries,
            "image has more than {} entries",
            self.limits.entries
        );
        let first = if record.kind() == Kind::Directory {
            EntryId::NONE.0
        } else {
            0
        };
        self.nodes.push(Node {
            record: stored,
            link: u32::from(record.kind().number()) << 29 | first,
        });
        Ok(NodeId(id))
    }

    /// The number of nodes ever made.
    pub(crate) fn node_count(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn kind(&self, node: NodeId) -> Kind {
        Kind::from_number(self.node(node).link >> 29)
    }

    /// How many names a node has; not for directories.
    pub(crate) fn names(&self, node: NodeId) -> u32 {
        self.node(node).link & LINK_MASK
    }

    pub(crate) fn record(&self, node: NodeId) -> Result<Record> {
        Record::read(&self.scratch, self.node(node).record)
    }

    pub(crate) fn set_record(&mut self, node: NodeId, record: &Record) -> Result<()> {
        let stored = record.append(&mut self.scratch)?;
        self.nodes[node.0 as usize].record = stored;
        Ok(())
    }

    /// The target of a symbolic link.
    pub(crate) fn target(&self, node: NodeId) -> Result<Vec<u8>> {
        let record = self.record(node)?;
        self.scratch.bytes(record.extra, record.extra_bytes)
    }

    /// The entry called `name`, unless it is hidden.
    pub(crate) fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<EntryId>> {
        let found = self.find(directory, name, self.hash(directory, name))?;
        Ok(found.filter(|&entry| self.entry(entry).node != NodeId::NONE))
    }

    /// Gives `node` the name `name`, which nothing else has.
    pub(crate) fn attach(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        let hash = self.hash(directory, name);
        let id = match self.find(directory, name, hash)? {
            Some(hidden) => hidden,
            None => self.add_entry(directory, name, hash)?,
        };
        let layer = self.layer;
        let entry = &mut self.entries[id.0 as usize];
        entry.node = node;
        entry.layer = layer;
        if self.kind(node) != Kind::Directory {
            self.nodes[node.0 as usize].link += 1;
        }
        Ok(())
    }

    /// Says that the current layer holds this name too.
    pub(crate) fn touch(&mut self, entry: EntryId) {
        self.entries[entry.0 as usize].layer = self.layer;
    }

    /// What a live entry leads to.
    pub(crate) fn node_of(&self, entry: EntryId) -> NodeId {
        self.entry(entry).node
    }

    /// Frees the index once no name is looked up any more.
    pub(crate) fn forget_index(&mut self) {
        self.index = HashTable::new();
        self.opaque = HashSet::new();
    }

    fn add_entry(&mut self, directory: NodeId, name: &[u8], hash: u32) -> Result<EntryId> {
        let id = u32::try_from(self.entries.len())?;
        ensure!(
            id < self.limits.entries.min(LINK_MASK),
            "image has more than {} entries",
            self.limits.entries
        );
        let length = u8::try_from(name.len()).context("name is longer than 255 bytes")?;
        let stored = self.scratch.append(&[&[length], name])?;
        let head = &mut self.nodes[directory.0 as usize].link;
        let next = EntryId(*head & LINK_MASK);
        *head = *head & !LINK_MASK | id;
        self.entries.push(Entry {
            parent: directory,
            node: NodeId::NONE,
            name: stored,
            hash,
            next,
            layer: self.layer,
        });
        let entries = &self.entries;
        self.index.insert_unique(spread(hash), id, |&other| {
            spread(entries[other as usize].hash)
        });
        Ok(EntryId(id))
    }

    fn find(&self, directory: NodeId, name: &[u8], hash: u32) -> Result<Option<EntryId>> {
        for &id in self.index.iter_hash(spread(hash)) {
            let entry = &self.entries[id as usize];
            if entry.hash == hash && entry.parent == directory && self.has_name(entry, name)? {
                return Ok(Some(EntryId(id)));
            }
        }
        Ok(None)
    }

    fn has_name(&self, entry: &Entry, name: &[u8]) -> Result<bool> {
        let mut stored = [0; 1 + NAME_MAX];
        let stored = self
            .scratch
            .read_some(entry.name, &mut stored[..1 + name.len().min(NAME_MAX)])?;
        Ok(stored
            .split_first()
            .is_some_and(|(&length, stored)| usize::from(length) == name.len() && stored == name))
    }

    /// The name of an entry, read into `buffer`.
    pub(crate) fn name<'a>(
        &self,
        entry: EntryId,
        buffer: &'a mut [u8; 1 + NAME_MAX],
    ) -> Result<&'a [u8]> {
        let stored = self.scratch.read_some(self.entry(entry).name, buffer)?;
        let name = stored
            .split_first()
            .and_then(|(&length, rest)| rest.get(..usize::from(length)));
        name.context("name in scratch file is cut short")
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a part of the hash is enough"
    )]
    fn hash(&self, directory: NodeId, name: &[u8]) -> u32 {
        self.hasher.hash_one((directory.0, name)) as u32
    }

    fn entry(&self, entry: EntryId) -> &Entry {
        &self.entries[entry.0 as usize]
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0 as usize]
    }
}

/// The table takes its position from the low bits and its tag from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

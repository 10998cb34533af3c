//! Taking names away: replaced entries, whiteouts and opaque directories. Nodes that lose their last name are
//! noted for the writer, which gives their blocks back.

use anyhow::Result;

use super::{EntryId, Kind, LINK_MASK, NodeId, Tree};
use crate::scratch::Handle;

impl Tree {
    /// Hides a name, and all that lies below it.
    pub(crate) fn detach(&mut self, entry: EntryId) {
        let mut doomed = vec![entry];
        while let Some(entry) = doomed.pop() {
            let node = self.entry(entry).node;
            self.entries[entry.0 as usize].node = NodeId::NONE;
            if self.kind(node) == Kind::Directory {
                doomed.extend(self.live_entries(node));
            } else {
                self.drop_name(node);
            }
        }
    }

    /// Hides what lower layers put below a directory and leaves what the current layer put there.
    pub(crate) fn make_opaque(&mut self, directory: NodeId) {
        let mut pruned = vec![directory];
        while let Some(directory) = pruned.pop() {
            if !self.opaque.insert(directory) {
                continue;
            }
            for entry in self.live_entries(directory) {
                if self.entry(entry).layer != self.layer {
                    self.detach(entry);
                } else if self.kind(self.entry(entry).node) == Kind::Directory {
                    pruned.push(self.entry(entry).node);
                }
            }
        }
    }

    /// What a whiteout does: hides a name of lower layers; of a directory that the current layer holds too, its
    /// lower content.
    pub(crate) fn white_out(&mut self, directory: NodeId, name: &[u8]) -> Result<()> {
        let Some(entry) = self.lookup(directory, name)? else {
            return Ok(());
        };
        let node = self.entry(entry).node;
        if self.entry(entry).layer != self.layer {
            self.detach(entry);
        } else if self.kind(node) == Kind::Directory {
            self.make_opaque(node);
        }
        Ok(())
    }

    /// Takes one more name of a node, so that it outlives the others.
    pub(crate) fn hold(&mut self, node: NodeId) {
        self.nodes[node.0 as usize].link += 1;
    }

    /// Takes a name away from a node that is no directory.
    pub(crate) fn drop_name(&mut self, node: NodeId) {
        let node = &mut self.nodes[node.0 as usize];
        node.link -= 1;
        if node.link & LINK_MASK == 0 {
            self.released.push(node.record);
        }
    }

    /// The records of nodes that lost their last name since the last call.
    pub(crate) fn take_released(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.released)
    }

    /// A released node's record.
    pub(crate) fn released_record(&self, at: Handle) -> Result<super::Record> {
        super::Record::read(&self.scratch, at)
    }
}

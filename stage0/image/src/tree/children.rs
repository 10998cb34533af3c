//! The entries of one directory: as a list, and sorted for writing.

use anyhow::Result;

use super::{EntryId, LINK_MASK, NAME_MAX, NodeId, Tree};

impl Tree {
    /// The entries of a directory that are not hidden.
    pub(super) fn live_entries(&self, directory: NodeId) -> Vec<EntryId> {
        self.children(directory)
            .filter(|&entry| self.entry(entry).node != NodeId::NONE)
            .collect()
    }

    /// All entries of a directory, in the order of its list.
    pub(crate) fn children(&self, directory: NodeId) -> impl Iterator<Item = EntryId> {
        let first = EntryId(self.node(directory).link & LINK_MASK);
        let follow =
            |&entry: &EntryId| Some(self.entry(entry).next).filter(|&next| next != EntryId::NONE);
        std::iter::successors(Some(first).filter(|&first| first != EntryId::NONE), follow)
    }

    /// Puts a directory's list into byte order and drops hidden names from it.
    pub(crate) fn sort_children(&mut self, directory: NodeId) -> Result<()> {
        let mut order: Vec<(u64, EntryId)> = self
            .live_entries(directory)
            .into_iter()
            .map(|entry| (0, entry))
            .collect();
        self.sort(&mut order)?;
        let mut next = EntryId::NONE;
        for &(_, entry) in order.iter().rev() {
            self.entries[entry.0 as usize].next = next;
            next = entry;
        }
        let head = &mut self.nodes[directory.0 as usize].link;
        *head = *head & !LINK_MASK | next.0;
        Ok(())
    }

    /// Sorts by eight bytes of the names at a time: those that still tie are sorted by the next eight. Each
    /// round reads each name once, so a hostile choice of names costs no more than 32 rounds.
    fn sort(&self, order: &mut [(u64, EntryId)]) -> Result<()> {
        let mut ties = vec![(0..order.len(), 0)];
        while let Some((range, skip)) = ties.pop() {
            let part = &mut order[range.clone()];
            for (key, entry) in part.iter_mut() {
                *key = self.key(*entry, skip)?;
            }
            part.sort_unstable_by_key(|&(key, _)| key);
            let mut begin = range.start;
            for run in part.chunk_by(|left, right| left.0 == right.0) {
                if run.len() > 1 && skip < NAME_MAX {
                    ties.push((begin..begin + run.len(), skip + 8));
                }
                begin += run.len();
            }
        }
        Ok(())
    }

    /// Eight bytes of a name as a number; a name that ended sorts first, because no name has a zero byte.
    fn key(&self, entry: EntryId, skip: usize) -> Result<u64> {
        let mut buffer = [0; 1 + NAME_MAX];
        let name = self.name(entry, &mut buffer)?;
        let mut key = [0; 8];
        let part = name.get(skip..).unwrap_or_default();
        let length = part.len().min(8);
        key[..length].copy_from_slice(&part[..length]);
        Ok(u64::from_be_bytes(key))
    }
}

//! Leaving out all but a list of paths: an ACI's whitelist (appc specification 0.8.11, "pathWhitelist"). Called by the
//! EROFS writer when everything else has been applied.

use std::collections::HashSet;

use anyhow::Result;

use super::path::Walk;
use super::{EntryId, Kind, NodeId, Tree, split};

impl Tree {
    /// Hides what is not at one of `paths`, all of them clean, nor leads there. A directory is kept without what lies
    /// below it, unless that is listed too; a path that does not exist keeps nothing.
    pub(crate) fn retain<'a>(&mut self, paths: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let mut kept = HashSet::new();
        for path in paths {
            self.keep(path, &mut kept)?;
        }
        let mut pruned = vec![NodeId::ROOT];
        while let Some(directory) = pruned.pop() {
            for entry in self.live_entries(directory) {
                if !kept.contains(&entry) {
                    self.detach(entry);
                } else if self.kind(self.node_of(entry)) == Kind::Directory {
                    pruned.push(self.node_of(entry));
                }
            }
        }
        Ok(())
    }

    /// Notes the entry at `path` and those that lead to it, symbolic links among them.
    fn keep(&self, path: &[u8], kept: &mut HashSet<EntryId>) -> Result<()> {
        let Some((parent, name)) = split(path) else {
            return Ok(());
        };
        let mut walk = Walk::new(parent);
        let mut passed = Vec::new();
        while let Some(name) = walk.next_name() {
            let Some(entry) = self.lookup(walk.directory(), &name)? else {
                return Ok(());
            };
            let node = self.node_of(entry);
            if !matches!(self.kind(node), Kind::Directory | Kind::Symlink) {
                return Ok(());
            }
            passed.push(entry);
            self.step(&mut walk, node)?;
        }
        if let Some(entry) = self.lookup(walk.directory(), name)? {
            passed.push(entry);
            kept.extend(passed);
        }
        Ok(())
    }
}

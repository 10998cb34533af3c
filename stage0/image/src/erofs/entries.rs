//! Entries go into the tree: what comes later hides what was there. From a source, or from a layer's journal.

use anyhow::{Context, Result, ensure};

use super::journal::Journal;
use super::{Body, Writer, Xattrs, printed};
use crate::tree::{Attributes, EntryId, Kind, NodeId, Record, clean, split};

impl Writer {
    /// Counts an entry of a source or a step of a journal, whatever becomes of it.
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
            self.blocks.wait(path.len() as u64)?;
        }
        self.place(&path, &record)
    }

    /// Puts what `record` says at the clean `path`.
    pub(super) fn place(&mut self, path: &[u8], record: &Record) -> Result<()> {
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
        self.note(path.len() + target.len(), |journal| {
            journal.link(&path, &target)
        })?;
        self.place_link(&path, &target)
    }

    pub(super) fn place_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
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

    /// Notes a step with paths of that many bytes in the journal, if there is one.
    fn note(&mut self, bytes: usize, write: impl FnOnce(&mut Journal) -> Result<()>) -> Result<()> {
        match &mut self.journal {
            Some(journal) => write(journal).and_then(|()| self.blocks.wait(bytes as u64)),
            None => Ok(()),
        }
    }

    /// Hides what lower layers have at `path`.
    pub(crate) fn white_out(&mut self, path: &[u8]) -> Result<()> {
        self.limits.check_path(path)?;
        let path = clean(path)?;
        self.note(path.len(), |journal| journal.white_out(&path))?;
        self.hide(&path)
    }

    pub(super) fn hide(&mut self, path: &[u8]) -> Result<()> {
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
        self.note(path.len(), |journal| journal.make_opaque(&path))?;
        self.hide_below(&path)
    }

    pub(super) fn hide_below(&mut self, path: &[u8]) -> Result<()> {
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

    fn parent_directory(&mut self, path: &[u8]) -> Result<NodeId> {
        if let Some((_, directory)) = self.parent.as_ref().filter(|(known, _)| known == path) {
            return Ok(*directory);
        }
        let directory = self.tree.make_directories(path)?;
        self.parent = Some((path.to_vec(), directory));
        Ok(directory)
    }

    /// Hides an entry; known paths may lead elsewhere after it.
    fn detach(&mut self, entry: EntryId) -> Result<()> {
        if matches!(
            self.tree.kind(self.tree.node_of(entry)),
            Kind::Directory | Kind::Symlink
        ) {
            self.parent = None;
        }
        self.tree.detach(entry);
        self.give_back()
    }
}

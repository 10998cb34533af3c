//! Where a path leads within the tree: a name in a tar can only mean a place in the image. Symbolic links of the
//! tree are followed as if its root were the root of the system, a bounded number of times.

use anyhow::{Result, bail, ensure};

use super::{Attributes, Kind, NAME_MAX, NodeId, Record, Tree};
use crate::scratch::Handle;

/// Symbolic links followed on one path, as in Linux.
const MAX_LINKS: usize = 40;

/// An entry's name without empty parts, `.` and `..`; empty for the root. A name that climbs out is refused.
pub(crate) fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => ensure!(parts.pop().is_some(), "name leads out of the image"),
            _ if part.len() > NAME_MAX => bail!(
                "name has a part of {} bytes, longer than {NAME_MAX}",
                part.len()
            ),
            _ => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// A clean path as parent and last name; None for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

impl Tree {
    /// The directory at `path`, made with its parents where missing, and marked as the current layer's.
    pub(crate) fn make_directories(&mut self, path: &[u8]) -> Result<NodeId> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.next_name() {
            let directory = walk.directory();
            if let Some(entry) = self.lookup(directory, &name)? {
                self.step(&mut walk, self.node_of(entry))?;
                if self.kind(self.node_of(entry)) == Kind::Directory {
                    self.touch(entry);
                }
            } else {
                let made = self.add_node(&Record::directory(
                    &Attributes::missing_parent(),
                    Handle::NONE,
                    0,
                ))?;
                self.attach(directory, &name, made)?;
                self.step(&mut walk, made)?;
            }
        }
        Ok(walk.directory())
    }

    /// The directory at `path`, if there is one.
    pub(crate) fn find_directory(&self, path: &[u8]) -> Result<Option<NodeId>> {
        let mut walk = Walk::new(path);
        while let Some(name) = walk.next_name() {
            let Some(entry) = self.lookup(walk.directory(), &name)? else {
                return Ok(None);
            };
            let node = self.node_of(entry);
            if !matches!(self.kind(node), Kind::Directory | Kind::Symlink) {
                return Ok(None);
            }
            self.step(&mut walk, node)?;
        }
        Ok(Some(walk.directory()))
    }

    pub(super) fn step(&self, walk: &mut Walk, node: NodeId) -> Result<()> {
        match self.kind(node) {
            Kind::Directory => {
                walk.above.push(node);
                ensure!(
                    walk.above.len() <= self.limits.depth,
                    "directories are nested deeper than {}",
                    self.limits.depth
                );
            }
            Kind::Symlink => walk.follow(&self.target(node)?)?,
            _ => bail!("a part of the path is not a directory"),
        }
        Ok(())
    }
}

/// A path being walked.
pub(super) struct Walk {
    /// The directories from the root down to where the walk stands.
    above: Vec<NodeId>,
    rest: Vec<u8>,
    position: usize,
    links: usize,
}

impl Walk {
    pub(super) fn new(path: &[u8]) -> Self {
        Self {
            above: vec![NodeId::ROOT],
            rest: path.to_vec(),
            position: 0,
            links: 0,
        }
    }

    pub(super) fn directory(&self) -> NodeId {
        self.above.last().copied().unwrap_or(NodeId::ROOT)
    }

    /// The next name to look up; `..` of a link's target stops at the root, as it does in a system's root.
    pub(super) fn next_name(&mut self) -> Option<Vec<u8>> {
        while self.position < self.rest.len() {
            let rest = &self.rest[self.position..];
            let end = rest
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(rest.len());
            let name = &rest[..end];
            self.position += end + 1;
            match name {
                b"" | b"." => {}
                b".." => self.above.truncate((self.above.len() - 1).max(1)),
                _ => return Some(name.to_vec()),
            }
        }
        None
    }

    fn follow(&mut self, target: &[u8]) -> Result<()> {
        self.links += 1;
        ensure!(
            self.links <= MAX_LINKS,
            "path passes through more than {MAX_LINKS} symbolic links"
        );
        if target.starts_with(b"/") {
            self.above.truncate(1);
        }
        let rest = self.rest.get(self.position..).unwrap_or_default();
        self.rest = [target, rest].join(&b'/');
        self.position = 0;
        Ok(())
    }
}

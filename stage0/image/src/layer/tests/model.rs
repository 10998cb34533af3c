//! Random layers give the tree that a simple model of the OCI rules gives.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tar::EntryType;

use super::tars::Tar;
use super::{convert, read_back};
use crate::limits::Limits;

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Directory,
    File(u8),
    Symlink(String),
    Link(String),
    Whiteout,
    Opaque,
}

type Path = Vec<String>;

/// Every name with its inode and the last layer that held it.
#[derive(Default)]
struct Model {
    names: BTreeMap<Path, (usize, usize)>,
    inodes: Vec<Inode>,
    layer: usize,
}

#[derive(Clone, PartialEq)]
enum Inode {
    Directory,
    File(u8),
    Symlink(String),
}

impl Model {
    fn inode(&self, path: &Path) -> Option<&Inode> {
        match path.is_empty() {
            true => Some(&Inode::Directory),
            false => self.names.get(path).map(|&(inode, _)| &self.inodes[inode]),
        }
    }

    fn add(&mut self, path: Path, inode: Inode) {
        self.inodes.push(inode);
        self.names.insert(path, (self.inodes.len() - 1, self.layer));
    }

    fn remove(&mut self, path: &Path) {
        self.names.retain(|name, _| !name.starts_with(path));
    }

    /// Follows links; with `make`, missing directories are made. None: it leads nowhere.
    fn resolve(&mut self, path: &str, make: bool) -> Result<Option<Path>, ()> {
        let mut rest: Vec<String> = path.split('/').rev().map(String::from).collect();
        let (mut at, mut links) = (Path::new(), 0);
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(part),
            }
            match self.inode(&at).cloned() {
                Some(Inode::Directory) if make => {
                    self.names.get_mut(&at).expect("there").1 = self.layer;
                }
                Some(Inode::Directory) => {}
                Some(Inode::File(_)) => return if make { Err(()) } else { Ok(None) },
                Some(Inode::Symlink(target)) => {
                    links += 1;
                    if links > 40 {
                        return Err(());
                    }
                    at.pop();
                    if target.starts_with('/') {
                        at.clear();
                    }
                    rest.extend(target.split('/').rev().map(String::from));
                }
                None if make => self.add(at.clone(), Inode::Directory),
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Hides what lower layers have strictly below a directory.
    fn prune(&mut self, directory: &Path) {
        let below: Vec<Path> = self
            .names
            .keys()
            .filter(|name| name.starts_with(directory) && name.len() > directory.len())
            .cloned()
            .collect();
        for name in below {
            if self
                .names
                .get(&name)
                .is_some_and(|&(_, layer)| layer != self.layer)
            {
                self.remove(&name);
            }
        }
    }

    fn apply(&mut self, path: &str, operation: &Operation) -> Result<(), ()> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match operation {
            Operation::Opaque => {
                if let Some(directory) = self.resolve(path, false)? {
                    self.prune(&directory);
                }
                return Ok(());
            }
            Operation::Whiteout => {
                let Some(mut place) = self.resolve(parent, false)? else {
                    return Ok(());
                };
                place.push(name.into());
                match self.names.get(&place) {
                    Some(&(_, layer)) if layer != self.layer => self.remove(&place),
                    Some(_) => self.prune(&place),
                    None => {}
                }
                return Ok(());
            }
            _ => {}
        }
        let linked = match operation {
            Operation::Link(target) => {
                let (parent, name) = target.rsplit_once('/').unwrap_or(("", target));
                let mut place = self.resolve(parent, false)?.ok_or(())?;
                place.push(name.into());
                let inode = self.names.get(&place).ok_or(())?.0;
                if self.inodes[inode] == Inode::Directory {
                    return Err(());
                }
                Some(inode)
            }
            _ => None,
        };
        let mut place = self.resolve(parent, true)?.ok_or(())?;
        place.push(name.into());
        if matches!(operation, Operation::Directory)
            && self.inode(&place) == Some(&Inode::Directory)
        {
            self.names.get_mut(&place).expect("there").1 = self.layer;
            return Ok(());
        }
        self.remove(&place);
        match operation {
            Operation::File(byte) => self.add(place, Inode::File(*byte)),
            Operation::Symlink(target) => self.add(place, Inode::Symlink(target.clone())),
            Operation::Directory => self.add(place, Inode::Directory),
            _ => drop(self.names.insert(place, (linked.ok_or(())?, self.layer))),
        }
        Ok(())
    }
}

fn add(tar: Tar, path: &str, operation: &Operation) -> Tar {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    match operation {
        Operation::Directory => tar.directory(path),
        Operation::File(byte) => tar.file(path, &vec![*byte; usize::from(*byte) * 100]),
        Operation::Symlink(target) => tar.symlink(path, target),
        Operation::Link(target) => tar.hard_link(path, target),
        Operation::Whiteout => tar.file(&format!("{parent}/.wh.{name}"), b""),
        Operation::Opaque => {
            tar.entry(&format!("{path}/.wh..wh..opq"), EntryType::Regular, b"", "")
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => Just(Operation::Directory),
        3 => (1u8..).prop_map(Operation::File),
        1 => (prop_oneof![Just(""), Just("/"), Just("../")], path()).prop_map(|(start, path)| Operation::Symlink(format!("{start}{path}"))),
        1 => path().prop_map(Operation::Link),
        2 => Just(Operation::Whiteout),
        1 => Just(Operation::Opaque),
    ]
}

/// A layer, which may be one that is refused.
pub(crate) fn layer() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((path(), operation()), 0..12).prop_map(|entries| {
        let tar = Tar::default();
        let add = |tar, (path, operation): &(String, Operation)| add(tar, path, operation);
        entries.iter().fold(tar, add).end()
    })
}

/// Layers of paths and what happens there.
pub(super) fn layers() -> impl Strategy<Value = Vec<Vec<(String, Operation)>>> {
    prop::collection::vec(prop::collection::vec((path(), operation()), 0..8), 1..5)
}

/// The tars of layers, and what is to become of them.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) tars: Vec<Vec<u8>>,
    model: Model,
    refused: bool,
}

impl Layers {
    pub(super) fn of(layers: &[Vec<(String, Operation)>]) -> Self {
        let mut made = Self::default();
        for layer in layers {
            made.model.layer += 1;
            let mut tar = Tar::default();
            for (path, operation) in layer {
                // An entry that would be refused is left out once in the model; the real one must refuse it too.
                tar = add(tar, path, operation);
                made.refused |= !made.refused && made.model.apply(path, operation).is_err();
            }
            made.tars.push(tar.end());
        }
        made
    }
}

proptest! {
    #[test]
    fn layers_at_random_give_the_model_s_tree(layers in layers()) {
        let Layers { tars, model, refused } = Layers::of(&layers);
        let converted = convert(&tars, Limits::default());
        prop_assert_eq!(converted.is_err(), refused);
        let Ok((_, image)) = converted else { return Ok(()) };
        let seen = read_back(&image).expect("read back");
        let names: BTreeSet<Vec<u8>> = model.names.keys().map(|path| path.join("/").into_bytes()).collect();
        prop_assert_eq!(seen.keys().skip(1).cloned().collect::<BTreeSet<_>>(), names);
        for (path, &(inode, _)) in &model.names {
            let entry = &seen[&path.join("/").into_bytes()];
            match &model.inodes[inode] {
                Inode::Directory => prop_assert_eq!(entry.mode, 0o755),
                Inode::File(byte) => prop_assert_eq!(&entry.content, &vec![*byte; usize::from(*byte) * 100]),
                Inode::Symlink(target) => prop_assert_eq!(&entry.content, target.as_bytes()),
            }
            if model.inodes[inode] != Inode::Directory {
                let links = model.names.values().filter(|&&(other, _)| other == inode).count();
                prop_assert_eq!(entry.links as usize, links);
            }
        }
    }
}

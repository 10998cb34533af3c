//! Compares two folders entry by entry as a container would see them: type, mode, owner, time to the nanosecond,
//! size, hard links, device number, extended attributes, link target, content. For the image writer's tests: a
//! mounted EROFS file beside what another tool unpacked. `compare_trees LEFT RIGHT [--ignore-time-of NAME…]`;
//! prints each difference, ends with 1 if there is any. Single thread, no side effects.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: compare_trees LEFT RIGHT [--ignore-time-of NAME…]";
    let left = PathBuf::from(arguments.next().context(usage)?);
    let right = PathBuf::from(arguments.next().context(usage)?);
    let timeless = arguments.skip(1).map(PathBuf::from).collect();
    let mut comparison = Comparison {
        left,
        right,
        timeless,
        inodes: HashMap::new(),
        entries: 0,
        differences: 0,
    };
    comparison.compare_all()?;
    println!(
        "{} entries, {} differences",
        comparison.entries, comparison.differences
    );
    Ok(ExitCode::from(u8::from(comparison.differences > 0)))
}

/// A comparison under way.
struct Comparison {
    left: PathBuf,
    right: PathBuf,
    /// Entries whose time is the unpacker's own.
    timeless: BTreeSet<PathBuf>,
    /// Inode on the left to inode on the right: hard links must be the same on both sides.
    inodes: HashMap<u64, u64>,
    entries: u64,
    differences: u64,
}

impl Comparison {
    fn compare_all(&mut self) -> Result<()> {
        let mut pending = vec![PathBuf::new()];
        while let Some(entry) = pending.pop() {
            self.entries += 1;
            if self.compare_entry(&entry)? {
                pending.extend(self.names(&entry)?.into_iter().map(|name| entry.join(name)));
            }
        }
        Ok(())
    }

    /// Compares one entry; says whether both are directories.
    fn compare_entry(&mut self, entry: &Path) -> Result<bool> {
        let (left, right) = (self.left.join(entry), self.right.join(entry));
        let meta = |path: &Path| {
            fs::symlink_metadata(path).with_context(|| format!("stat {}", path.display()))
        };
        let (left_meta, right_meta) = (meta(&left)?, meta(&right)?);
        self.equal(
            entry,
            "mode",
            &format!("{:o}", left_meta.mode()),
            &format!("{:o}", right_meta.mode()),
        );
        self.equal(
            entry,
            "owner",
            &(left_meta.uid(), left_meta.gid()),
            &(right_meta.uid(), right_meta.gid()),
        );
        self.equal(entry, "device", &left_meta.rdev(), &right_meta.rdev());
        if !self.timeless.contains(entry) {
            let time = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec());
            self.equal(entry, "time", &time(&left_meta), &time(&right_meta));
        }
        self.equal(
            entry,
            "attributes",
            &attributes(&left)?,
            &attributes(&right)?,
        );
        if !left_meta.is_dir() {
            self.equal(entry, "size", &left_meta.size(), &right_meta.size());
            self.equal(entry, "links", &left_meta.nlink(), &right_meta.nlink());
            let other = *self
                .inodes
                .entry(left_meta.ino())
                .or_insert(right_meta.ino());
            self.equal(entry, "hard link", &other, &right_meta.ino());
        }
        if left_meta.is_symlink() && right_meta.is_symlink() {
            self.equal(
                entry,
                "target",
                &fs::read_link(&left)?,
                &fs::read_link(&right)?,
            );
        }
        if left_meta.is_file() && right_meta.is_file() {
            self.equal(entry, "content", &None, &first_difference(&left, &right)?);
        }
        Ok(left_meta.is_dir() && right_meta.is_dir())
    }

    /// The names that a directory has on both sides; those on one side only are differences.
    fn names(&mut self, directory: &Path) -> Result<Vec<OsString>> {
        let (left, right) = (
            list(&self.left.join(directory))?,
            list(&self.right.join(directory))?,
        );
        for name in left.symmetric_difference(&right) {
            let side = if left.contains(name) {
                &self.left
            } else {
                &self.right
            };
            let device = fs::symlink_metadata(side.join(directory).join(name))?
                .file_type()
                .is_char_device();
            println!(
                "{}: only in {}{}",
                directory.join(name).display(),
                side.display(),
                if device { " (character device)" } else { "" }
            );
            self.differences += 1;
        }
        Ok(left.intersection(&right).cloned().collect())
    }

    fn equal<T: PartialEq + std::fmt::Debug>(
        &mut self,
        entry: &Path,
        what: &str,
        left: &T,
        right: &T,
    ) {
        if left != right {
            println!("{}: {what}: {left:?} and {right:?}", entry.display());
            self.differences += 1;
        }
    }
}

fn list(directory: &Path) -> Result<BTreeSet<OsString>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

fn attributes(path: &Path) -> Result<Vec<(OsString, Option<Vec<u8>>)>> {
    let mut names: Vec<OsString> = xattr::list(path)
        .with_context(|| format!("list attributes of {}", path.display()))?
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| Ok((name.clone(), xattr::get(path, &name)?)))
        .collect()
}

/// The offset of the first piece in which two files differ.
fn first_difference(left: &Path, right: &Path) -> Result<Option<u64>> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    let (mut left_piece, mut right_piece) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut offset = 0;
    loop {
        let read = fill(&mut left, &mut left_piece)?;
        if fill(&mut right, &mut right_piece)? != read || left_piece[..read] != right_piece[..read]
        {
            return Ok(Some(offset));
        }
        if read == 0 {
            return Ok(None);
        }
        offset += read as u64;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

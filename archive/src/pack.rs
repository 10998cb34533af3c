//! A walk over a folder that appends all it finds, by paths: what changes the folder meanwhile can lead it astray, so that
//! nobody may walk for another where that one can change the folder.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};
use tar::Builder;

use crate::entry::{Entry, Kind, Xattrs};

/// Neither a link nor a pipe that has come to be where a file was leads astray or holds up.
const AS_FILE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK);

/// Writes what is at `path` to `to`, whole: a tar whose entries are called `name`, and `name/…` for what is below it. A link
/// at `path` itself is followed, others are packed as links; folders on which something is mounted are packed empty; sockets
/// are left out.
///
/// # Errors
/// If something cannot be read, or `to` not be written.
pub fn pack(path: &Path, name: &[u8], to: impl Write) -> Result<()> {
    let reading = |path: &Path| format!("read {}", path.display());
    let root = fs::canonicalize(path).with_context(|| reading(path))?;
    let device = fs::metadata(&root).with_context(|| reading(path))?.dev();
    let mut packing = Packing {
        tar: Builder::new(to),
        links: HashMap::new(),
    };
    let mut ahead = vec![(root, name.to_vec())];
    while let Some((path, name)) = ahead.pop() {
        let found = fs::symlink_metadata(&path).with_context(|| reading(&path))?;
        packing
            .append(&path, &name, &found)
            .with_context(|| format!("pack {}", path.display()))?;
        if found.is_dir() && found.dev() == device {
            let below = names(&path).with_context(|| reading(&path))?;
            ahead.extend(below.into_iter().rev().map(|below| {
                let name = [&name, b"/".as_slice(), below.as_bytes()].concat();
                (path.join(below), name)
            }));
        }
    }
    packing.tar.finish().context("end the archive")
}

fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

struct Packing<W: Write> {
    tar: Builder<W>,
    /// The first name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packing<W> {
    fn append(&mut self, path: &Path, name: &[u8], found: &Metadata) -> Result<()> {
        let kind = found.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut data: Box<dyn Read> = Box::new(io::empty());
        let target;
        let kind = if let Some(first) = self.first_name(name, found) {
            target = first;
            Kind::HardLink(&target)
        } else if kind.is_symlink() {
            target = fs::read_link(path)?.into_os_string().into_vec();
            Kind::Symlink(&target)
        } else if kind.is_dir() {
            Kind::Directory
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_char_device() {
            let (major, minor) = device(found)?;
            Kind::Character(major, minor)
        } else if kind.is_block_device() {
            let (major, minor) = device(found)?;
            Kind::Block(major, minor)
        } else {
            let mut options = OpenOptions::new();
            data = Box::new(options.read(true).custom_flags(AS_FILE.bits()).open(path)?);
            Kind::File(found.len())
        };
        let entry = Entry {
            path: name,
            kind,
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            mtime: (found.mtime(), u32::try_from(found.mtime_nsec())?),
            xattrs: &xattrs(path)?,
        };
        Ok(entry.append(&mut self.tar, data)?)
    }

    /// The name under which the file has been packed before.
    fn first_name(&mut self, name: &[u8], found: &Metadata) -> Option<Vec<u8>> {
        // Of devices and pipes, who unpacks may leave one name out, and with it what the others are.
        if found.nlink() < 2 || !(found.is_file() || found.is_symlink()) {
            return None;
        }
        let file = (found.dev(), found.ino());
        let first = self.links.get(&file).cloned();
        if first.is_none() {
            self.links.insert(file, name.to_vec());
        }
        first
    }
}

fn device(found: &Metadata) -> Result<(u32, u32)> {
    let number = found.rdev();
    Ok((major(number).try_into()?, minor(number).try_into()?))
}

/// Its extended attributes; none where the file system has none.
fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let listed = match xattr::list(path) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Xattrs::new()),
        listed => listed?,
    };
    let mut xattrs = Xattrs::new();
    for name in listed {
        // One that is gone meanwhile is none.
        if let Some(value) = xattr::get(path, &name)? {
            xattrs.insert(name.into_vec(), value);
        }
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn packed(path: &Path) -> Vec<(String, u8, String)> {
        let mut tar = Vec::new();
        pack(path, b"rootfs", &mut tar).expect("a folder");
        let mut archive = tar::Archive::new(&*tar);
        let entries = archive.entries().expect("a tar").map(|entry| {
            let entry = entry.expect("a good entry");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let target = entry.link_name_bytes().unwrap_or_default();
            let kind = entry.header().entry_type().as_byte();
            (text(&entry.path_bytes()), kind, text(&target))
        });
        entries.collect()
    }

    #[test]
    fn folder_is_packed_with_links_as_links_and_sockets_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("real")).expect("a folder");
        fs::write(path("real/b"), "text").expect("a file");
        fs::hard_link(path("real/b"), path("real/c")).expect("a link");
        symlink("/etc", path("real/a")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(path("real/s")).expect("a socket");
        symlink("real", path("link")).expect("a link");
        let entry = |name: &str, kind, target: &str| (name.to_owned(), kind, target.to_owned());
        assert_eq!(
            packed(&path("link")),
            [
                entry("rootfs", b'5', ""),
                entry("rootfs/a", b'2', "/etc"),
                entry("rootfs/b", b'0', ""),
                entry("rootfs/c", b'1', "rootfs/b"),
            ]
        );
        assert_eq!(packed(&path("real/b")), [entry("rootfs", b'0', "")]);
    }
}

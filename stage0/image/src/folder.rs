//! A folder of the host taken as a root file system. Walks it by directory descriptors and never through a
//! symbolic link, so that a folder changed meanwhile cannot lead outside; other file systems mounted in it are
//! left empty. Called by the image store, on the importing thread. What the user may not read is an error.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, major, minor};
use nix::unistd::{Whence, lseek64};

use crate::erofs::{Body, Content, Extent, Writer, Xattrs, printed};
use crate::tree::Attributes;

impl Writer {
    /// Puts a folder of the host, with all in it, into the image as its root.
    pub fn apply_folder(&mut self, folder: &Path) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(folder, flags, Mode::empty());
        let root = root.with_context(|| format!("open folder {}", folder.display()))?;
        self.begin_layer()?;
        let stat = fstatat(&root, c"", AtFlags::AT_EMPTY_PATH).context("stat folder")?;
        let mut walk = Walk {
            device: stat.st_dev,
            links: HashMap::new(),
        };
        self.put(
            b"",
            &attributes(&stat)?,
            &xattrs_of_open(root.as_fd())?,
            Body::Directory,
        )?;
        walk.fill(self, root)
    }
}

/// A walk under way.
struct Walk {
    device: u64,
    /// First path of each file that has several.
    links: HashMap<u64, Vec<u8>>,
}

/// A directory whose entries are being visited.
struct Level {
    descriptor: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    path: Vec<u8>,
}

impl Walk {
    fn fill(&mut self, writer: &mut Writer, root: OwnedFd) -> Result<()> {
        let mut levels = vec![Level::new(root, Vec::new())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let path = if level.path.is_empty() {
                name.clone()
            } else {
                [&level.path[..], &name].join(&b'/')
            };
            let below = self.visit(writer, level.descriptor.as_fd(), &name, &path);
            let below = below.with_context(|| printed(&path))?;
            if let Some(descriptor) = below {
                ensure!(
                    levels.len() < writer.limits().depth,
                    "{}: folders are nested too deep",
                    printed(&path)
                );
                levels.push(Level::new(descriptor, path.clone()).with_context(|| printed(&path))?);
            }
        }
        Ok(())
    }

    /// Puts one entry into the image; returns a directory that is to be walked.
    fn visit(
        &mut self,
        writer: &mut Writer,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<Option<OwnedFd>> {
        writer.count_entry()?;
        let name = OsStr::from_bytes(name);
        let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).context("stat")?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
            if let Some(first) = self
                .links
                .get(&stat.st_ino)
                .filter(|_| stat.st_dev == self.device)
            {
                writer.link(path, first)?;
                return Ok(None);
            }
            self.links.insert(stat.st_ino, path.to_vec());
        }
        let (device_major, device_minor) = (
            u32::try_from(major(stat.st_rdev))?,
            u32::try_from(minor(stat.st_rdev))?,
        );
        let body = match kind {
            SFlag::S_IFDIR => return self.visit_directory(writer, parent, name, path),
            SFlag::S_IFREG => {
                put_file(writer, parent, name, path)?;
                return Ok(None);
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(parent, name).context("read symbolic link")?;
                let xattrs = xattrs_of_name(parent, name)?;
                writer.put(
                    path,
                    &attributes(&stat)?,
                    &xattrs,
                    Body::Symlink(target.as_bytes()),
                )?;
                return Ok(None);
            }
            SFlag::S_IFCHR => Body::Character(device_major, device_minor),
            SFlag::S_IFBLK => Body::Block(device_major, device_minor),
            SFlag::S_IFIFO => Body::Fifo,
            _ => Body::Socket,
        };
        writer.put(
            path,
            &attributes(&stat)?,
            &xattrs_of_name(parent, name)?,
            body,
        )?;
        Ok(None)
    }

    fn visit_directory(
        &self,
        writer: &mut Writer,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
    ) -> Result<Option<OwnedFd>> {
        let opened = open_below(parent, name, OFlag::O_DIRECTORY)?;
        let stat = fstatat(&opened, c"", AtFlags::AT_EMPTY_PATH).context("stat")?;
        writer.put(
            path,
            &attributes(&stat)?,
            &xattrs_of_open(opened.as_fd())?,
            Body::Directory,
        )?;
        Ok(Some(opened).filter(|_| stat.st_dev == self.device))
    }
}

impl Level {
    /// Names are visited in byte order, so that the same folder gives the same image.
    fn new(descriptor: OwnedFd, path: Vec<u8>) -> Result<Self> {
        let mut directory = Dir::from_fd(descriptor.try_clone()?).context("list folder")?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.context("list folder")?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(Self {
            descriptor,
            names: names.into_iter(),
            path,
        })
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &OsStr, more: OFlag) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | more;
    openat(parent, name, flags, Mode::empty()).context("open")
}

fn put_file(writer: &mut Writer, parent: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<()> {
    let file = File::from(open_below(parent, name, OFlag::empty())?);
    let stat = fstatat(&file, c"", AtFlags::AT_EMPTY_PATH).context("stat")?;
    let is_file = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    ensure!(is_file, "changed into something else while it was read");
    let size = u64::try_from(stat.st_size)?;
    let extents = extents(&file, size, writer.limits().extents)?;
    let xattrs = xattrs_of_open(file.as_fd())?;
    let mut data = Data {
        file: &file,
        left: extents.clone().into_iter(),
        now: Extent {
            offset: 0,
            length: 0,
        },
    };
    writer.put(
        path,
        &attributes(&stat)?,
        &xattrs,
        Body::File(Content {
            size,
            extents,
            data: &mut data,
        }),
    )
}

/// The parts of a file that are no holes; beyond `limit` of them the rest counts as one.
fn extents(file: &File, size: u64, limit: usize) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut end = 0;
    while end < size {
        let offset = match lseek64(file, i64::try_from(end)?, Whence::SeekData) {
            Ok(offset) => u64::try_from(offset)?,
            Err(Errno::ENXIO) => break,
            Err(_) => end,
        };
        let hole = lseek64(file, i64::try_from(offset)?, Whence::SeekHole)
            .ok()
            .and_then(|hole| u64::try_from(hole).ok());
        end = hole
            .filter(|_| extents.len() + 1 < limit)
            .unwrap_or(size)
            .min(size);
        if offset >= end {
            break;
        }
        extents.push(Extent {
            offset,
            length: end - offset,
        });
    }
    Ok(extents)
}

/// Reads the extents of a file one after another.
struct Data<'a> {
    file: &'a File,
    left: std::vec::IntoIter<Extent>,
    now: Extent,
}

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.now.length == 0 {
            match self.left.next() {
                Some(extent) => self.now = extent,
                None => return Ok(0),
            }
        }
        let part = usize::try_from(self.now.length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read_at(&mut buffer[..part], self.now.offset)?;
        if read == 0 {
            return Err(std::io::Error::new(
                ErrorKind::UnexpectedEof,
                "file became shorter while it was read",
            ));
        }
        self.now.offset += read as u64;
        self.now.length -= read as u64;
        Ok(read)
    }
}

fn attributes(stat: &FileStat) -> Result<Attributes> {
    Ok(Attributes {
        permissions: u16::try_from(stat.st_mode & 0o7777)?,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        mtime_ns: u32::try_from(stat.st_mtime_nsec)?,
    })
}

fn xattrs_of_open(file: BorrowedFd<'_>) -> Result<Xattrs> {
    xattrs_at(
        Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())),
        true,
    )
}

/// Attributes of something that must not be opened (a device, a pipe, a link), by its directory's descriptor.
fn xattrs_of_name(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Xattrs> {
    xattrs_at(
        &Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name),
        false,
    )
}

fn xattrs_at(path: &Path, follow: bool) -> Result<Xattrs> {
    let list = if follow {
        xattr::list_deref(path)
    } else {
        xattr::list(path)
    };
    let names = match list {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Xattrs::new()),
        other => other.context("list extended attributes")?,
    };
    let mut xattrs = Xattrs::new();
    for name in names {
        let value = if follow {
            xattr::get_deref(path, &name)
        } else {
            xattr::get(path, &name)
        };
        if let Some(value) = value.context("read extended attribute")? {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}

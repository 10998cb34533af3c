//! The files of an image as a tree in a folder of the host. Every name is looked up by descriptors below that folder and follows no
//! link, for the names and the links are a stranger's.
//!
//! Under root the tree is the image's in all: owners, set-id bits, devices, extended attributes. Without, it is the caller's: no set-id
//! bits, no devices, of the attributes only those that begin with `user.`.

use std::ffi::{CString, OsStr};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, geteuid, linkat, symlinkat};

use super::files::{Files, Found, Shape};
use crate::erofs::Losses;
use crate::tree::split;

/// Permissions that files of a caller who is not root have at most.
const PERMISSIONS: u16 = 0o777;
/// How the attributes begin that anybody may set.
const USER: &[u8] = b"user.";
/// Bytes that are copied at once.
const BUFFER: usize = 128 << 10;

/// Makes the files in `folder`, which is empty.
///
/// # Errors
/// If the image is damaged, or something cannot be made; what was made by then stays.
pub fn render(files: &Files, folder: &Path) -> Result<Losses> {
    let opened = open(folder, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let root = opened.with_context(|| format!("open folder {}", folder.display()))?;
    let mut rendering = Rendering {
        files,
        parent: (
            Vec::new(),
            root.try_clone().context("duplicate a descriptor")?,
        ),
        root,
        is_root: geteuid().is_root(),
        unfinished: Vec::new(),
        losses: Losses::default(),
        buffer: vec![0; BUFFER],
    };
    files.each(|found| rendering.put(found))?;
    rendering.finish_folders(None)?;
    Ok(rendering.losses)
}

struct Rendering<'a> {
    files: &'a Files,
    root: OwnedFd,
    /// The folder that was asked for last, by its path.
    parent: (Vec<u8>, OwnedFd),
    is_root: bool,
    /// Folders that are being filled, each in the one before it: what they are like is set once nothing more comes into them.
    unfinished: Vec<Found>,
    losses: Losses,
    buffer: Vec<u8>,
}

impl Rendering<'_> {
    fn put(&mut self, found: &Found) -> Result<()> {
        self.finish_folders(Some(&found.path))?;
        let Some((parent, name)) = split(&found.path) else {
            self.unfinished.push(found.clone());
            return Ok(());
        };
        let (parent, name) = (self.folder(parent)?, CString::new(name)?);
        match &found.shape {
            Shape::Directory => {
                mkdirat(&parent, &*name, Mode::S_IRWXU).context("make a folder")?;
                self.unfinished.push(found.clone());
                return Ok(());
            }
            Shape::File => return self.put_file(found, &parent, &name),
            Shape::HardLink(first) => return self.link(found, first, &parent, &name),
            Shape::Symlink(target) => {
                symlinkat(OsStr::from_bytes(target), &parent, &*name).context("make a link")?;
            }
            Shape::Character(..) | Shape::Block(..) if !self.is_root => {
                self.losses.add(&found.path, "only root makes devices");
                return Ok(());
            }
            Shape::Character(major, minor) => {
                make(&parent, &name, SFlag::S_IFCHR, (*major, *minor))?;
            }

            Shape::Block(major, minor) => make(&parent, &name, SFlag::S_IFBLK, (*major, *minor))?,
            Shape::Fifo => make(&parent, &name, SFlag::S_IFIFO, (0, 0))?,
            Shape::Socket => make(&parent, &name, SFlag::S_IFSOCK, (0, 0))?,
        }
        self.finish_special(found, &parent, &name)
    }

    fn put_file(&mut self, found: &Found, parent: &OwnedFd, name: &CString) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(parent, &**name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = File::from(file.context("make it")?);
        let pieces = self.files.extents(found)?;
        for (offset, length) in pieces.unwrap_or_else(|| vec![(0, found.size())]) {
            self.copy(found, offset, offset + length, &file)
                .context("write it")?;
        }
        file.set_len(found.size()).context("set its size")?;
        self.finish(found, &file)
    }

    fn copy(&mut self, found: &Found, mut offset: u64, end: u64, to: &File) -> io::Result<()> {
        let mut content = self.files.content(found, offset).take(end - offset);
        while offset < end {
            let read = content.read(&mut self.buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&self.buffer[..read], offset)?;
            offset += read as u64;
        }
        Ok(())
    }

    fn link(
        &mut self,
        found: &Found,
        first: &[u8],
        parent: &OwnedFd,
        name: &CString,
    ) -> Result<()> {
        let (folder, first) = split(first).context("a link to the root")?;
        let folder = self.folder(folder)?;
        let linked = linkat(
            &folder,
            OsStr::from_bytes(first),
            parent,
            &**name,
            AtFlags::empty(),
        );
        match linked {
            // A device that was left out.
            Err(Errno::ENOENT) if !self.is_root => {
                self.losses.add(&found.path, "only root makes devices");
                Ok(())
            }
            linked => linked.context("link"),
        }
    }

    /// The folder at `path`, which this has made.
    fn folder(&mut self, path: &[u8]) -> Result<OwnedFd> {
        if self.parent.0 != path {
            let how = OpenHow::new()
                .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            let inside: &[u8] = if path.is_empty() { b"." } else { path };
            let opened = openat2(&self.root, OsStr::from_bytes(inside), how);
            self.parent = (path.to_vec(), opened.context("open its folder")?);
        }
        self.parent.1.try_clone().context("duplicate a descriptor")
    }

    /// Finishes the folders in which `next` is not; all of them, if nothing comes next.
    fn finish_folders(&mut self, next: Option<&[u8]>) -> Result<()> {
        let is_in = |folder: &Found| {
            next.is_some_and(|next| crate::layer::below(next, &folder.path).is_some())
        };
        while let Some(found) = self.unfinished.pop_if(|folder| !is_in(folder)) {
            let folder = File::from(self.folder(&found.path)?);
            self.finish(&found, &folder)?;
        }
        Ok(())
    }

    /// Makes a file or folder what the image says. A new owner takes set-id bits and capabilities away, so he comes first.
    fn finish(&mut self, found: &Found, file: &File) -> Result<()> {
        if self.is_root {
            let (uid, gid) = owner(found);
            nix::unistd::fchown(file, Some(uid), Some(gid)).context("set its owner")?;
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        for (name, value) in self.attributes(found) {
            let set = xattr::set_deref(&path, OsStr::from_bytes(name), value);
            set.with_context(|| format!("set attribute {}", name.escape_ascii()))?;
        }
        file.set_permissions(Permissions::from_mode(self.permissions(found).into()))
            .context("set its permissions")?;
        let time = time(found);
        nix::sys::stat::futimens(file, &time, &time).context("set its time")
    }

    /// As [`finish`](Self::finish), of what must not be opened.
    fn finish_special(&mut self, found: &Found, parent: &OwnedFd, name: &CString) -> Result<()> {
        if self.is_root {
            let (uid, gid) = owner(found);
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(parent, &**name, Some(uid), Some(gid), flags).context("set its owner")?;
        }
        let folder = format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd());
        let path = Path::new(&folder).join(OsStr::from_bytes(name.as_bytes()));
        for (attribute, value) in self.attributes(found) {
            let set = xattr::set(&path, OsStr::from_bytes(attribute), value);
            set.with_context(|| format!("set attribute {}", attribute.escape_ascii()))?;
        }
        if !matches!(found.shape, Shape::Symlink(_)) {
            // Made by this a moment ago in a folder that is its own: no link.
            std::fs::set_permissions(
                &path,
                Permissions::from_mode(self.permissions(found).into()),
            )
            .context("set its permissions")?;
        }
        let time = time(found);
        utimensat(
            parent,
            &**name,
            &time,
            &time,
            UtimensatFlags::NoFollowSymlink,
        )
        .context("set its time")
    }

    fn attributes<'f>(
        &self,
        found: &'f Found,
    ) -> impl Iterator<Item = (&'f Vec<u8>, &'f Vec<u8>)> + use<'f> {
        let is_root = self.is_root;
        let attributes = found.xattrs.iter();
        attributes.filter(move |(name, _)| is_root || name.starts_with(USER))
    }

    fn permissions(&self, found: &Found) -> u16 {
        match self.is_root {
            true => found.attributes.permissions,
            false => found.attributes.permissions & PERMISSIONS,
        }
    }
}

fn owner(found: &Found) -> (Uid, Gid) {
    let attributes = &found.attributes;
    (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid))
}

fn time(found: &Found) -> TimeSpec {
    TimeSpec::new(found.attributes.mtime, found.attributes.mtime_ns.into())
}

fn make(parent: &OwnedFd, name: &CString, kind: SFlag, device: (u32, u32)) -> Result<()> {
    let device = makedev(device.0.into(), device.1.into());
    match mknodat(parent, &**name, kind, Mode::S_IRUSR | Mode::S_IWUSR, device) {
        Err(Errno::EPERM) => bail!("this host lets nobody make devices here"),
        made => made.context("make it"),
    }
}

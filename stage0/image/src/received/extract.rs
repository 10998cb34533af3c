//! From a tar into a folder of the host. Every name is looked up by descriptors, part by part, and no link is followed: not one
//! that the tar brings, nor one that was there. What comes is the caller's, without set-id bits and extended attributes.

use std::ffi::{CString, OsStr};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::each;
use crate::layer::{Member, Type};

/// How folders are opened on the way.
const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Permissions that a file may bring along.
const PERMISSIONS: u16 = 0o777;

/// What a folder's owner can always do, so that it can be filled.
const OWN: u32 = 0o700;

/// Where a tree is to be.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A folder, by a path whose links are followed.
    pub folder: &'a Path,
    /// What the tree's root is called there; `None` = the tree is a folder whose content goes there.
    pub name: Option<&'a OsStr>,
}

/// Puts the tree that `tar` holds under the name `root` at `place`, in the place of files that have the same names; gives how
/// many devices and pipes were left out.
///
/// # Errors
/// If it is no tar, holds something else, is larger than an image may be, or something cannot be made.
pub fn extract(tar: impl Read, root: &str, place: Place<'_>) -> Result<u64> {
    let folder = open(
        place.folder,
        OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    let target = Target {
        folder: folder.with_context(|| format!("open folder {}", place.folder.display()))?,
        name: place.name.map(|name| name.as_bytes().to_vec()),
    };
    let mut left_out = 0;
    each(tar, root, |member, data| match member.kind {
        Type::Character | Type::Block | Type::Fifo => {
            left_out += 1;
            Ok(())
        }
        _ => target.put(member, data),
    })?;
    Ok(left_out)
}

struct Target {
    folder: OwnedFd,
    name: Option<Vec<u8>>,
}

impl Target {
    /// The folder in which a path of the tree lies, and its name there; `None` = the target's own folder.
    fn find(&self, path: &[u8]) -> Result<Option<(OwnedFd, CString)>> {
        let below = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty());
        let mut parts = self.name.iter().map(Vec::as_slice).chain(below).peekable();
        let mut folder = self.folder.try_clone()?;
        while let Some(part) = parts.next() {
            let name = CString::new(part)?;
            if parts.peek().is_none() {
                return Ok(Some((folder, name)));
            }
            folder = openat(&folder, &*name, FOLDER, Mode::empty())
                .with_context(|| format!("open folder {}", part.escape_ascii()))?;
        }
        Ok(None)
    }

    fn put(&self, member: &Member, data: &mut dyn Read) -> Result<()> {
        let Some((folder, name)) = self.find(&member.path)? else {
            ensure!(
                member.kind == Type::Directory,
                "it is no folder, whose content could go there"
            );
            return Ok(());
        };
        let mode = u32::from(member.attributes.permissions & PERMISSIONS);
        if member.kind == Type::Directory {
            return make_folder(&folder, &name, mode);
        }
        match unlinkat(&folder, &*name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => bail!("a folder is where it is to be"),
            Err(error) => return Err(error).context("take away what is where it is to be"),
        }
        match member.kind {
            Type::Symlink => {
                symlinkat(OsStr::from_bytes(&member.target), &folder, &*name).context("make a link")
            }
            Type::HardLink => {
                let first = self.find(&member.target)?.context("a link to a folder")?;
                linkat(&first.0, &*first.1, &folder, &*name, AtFlags::empty()).context("link")
            }
            _ => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let file = openat(&folder, &*name, flags, Mode::from_bits_truncate(0o600));
                let mut file = File::from(file.context("make it")?);
                io::copy(data, &mut file).context("write it")?;
                file.set_permissions(Permissions::from_mode(mode))?;
                Ok(file.set_modified(modified(member))?)
            }
        }
    }
}

/// Makes a folder; one that is there is used as it is.
fn make_folder(folder: &OwnedFd, name: &CString, mode: u32) -> Result<()> {
    match mkdirat(folder, &**name, Mode::from_bits_truncate(OWN)) {
        Ok(()) => {
            let made = openat(folder, &**name, FOLDER, Mode::empty())?;
            Ok(File::from(made).set_permissions(Permissions::from_mode(mode | OWN))?)
        }
        Err(Errno::EEXIST) => {
            let opened = openat(folder, &**name, FOLDER, Mode::empty());
            opened
                .map(drop)
                .context("what is there already is no folder")
        }
        Err(error) => Err(error).context("make a folder"),
    }
}

/// When the file was changed; a time that the host cannot have is 1970.
fn modified(member: &Member) -> SystemTime {
    let seconds = u64::try_from(member.attributes.mtime).unwrap_or(0);
    let since = Duration::new(seconds, member.attributes.mtime_ns);
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

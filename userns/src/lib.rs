//! User namespaces, by a descriptor: whose ids they map. Each is made by a child of the calling process, which must have a single
//! thread, as who enters one must, too.
#![warn(missing_docs)]

mod child;
mod claim;
mod subordinate;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, getegid, geteuid};

pub use self::child::{Child, close_descriptors_except};
pub use self::claim::claim;

/// One with the caller's own ids alone, which inside are root's if he is to be `root`.
///
/// # Errors
/// When the host lets him have none.
pub fn with_own_ids(root: bool) -> Result<OwnedFd> {
    let (uid, gid) = (geteuid(), getegid());
    let (inside, group) = match root {
        true => (0, 0),
        false => (uid.as_raw(), gid.as_raw()),
    };
    make(|child| {
        // What the kernel wants of one who has no power over groups.
        fs::write(format!("/proc/{child}/setgroups"), "deny")?;
        let (uids, gids) = (format!("{inside} {uid} 1"), format!("{group} {gid} 1"));
        set_maps(child, &uids, &gids)
    })
}

/// One in which the caller is root, and the others are his subordinate ids; none if he has none.
///
/// # Errors
/// When they cannot be found out, or not be mapped.
pub fn with_subordinate_ids() -> Result<Option<OwnedFd>> {
    let ids = subordinate::of(geteuid(), getegid())?;
    ids.map(|ids| make(|child| ids.map(child))).transpose()
}

/// One with one map for uids and gids, for a caller who has power over them.
///
/// # Errors
/// When he has not.
pub fn with_ids(map: &str) -> Result<OwnedFd> {
    make(|child| set_maps(child, map, map))
        .with_context(|| format!("with the ids {:?}", map.trim()))
}

/// One in which every id of the caller's own namespace is the same.
///
/// # Errors
/// As [`with_ids`].
pub fn with_same_ids() -> Result<OwnedFd> {
    let known = fs::read_to_string("/proc/self/uid_map").context("read /proc/self/uid_map")?;
    let lines = known.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace();
        let (first, count) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{first} {first} {count}\n"))
    });
    with_ids(&lines.collect::<String>())
}

/// Sets the ids of the user namespace of the process `child`, as far as this process may.
fn set_maps(child: Pid, uids: &str, gids: &str) -> io::Result<()> {
    fs::write(format!("/proc/{child}/uid_map"), uids)?;
    fs::write(format!("/proc/{child}/gid_map"), gids)
}

/// One whose ids `map` sets, made by a child that lives no longer than that takes.
fn make(map: impl FnOnce(Pid) -> io::Result<()>) -> Result<OwnedFd> {
    let make = || -> Result<OwnedFd> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let child = Child::start(theirs, |mut theirs| {
            unshare(CloneFlags::CLONE_NEWUSER)?;
            theirs.write_all(&[0])?;
            theirs.read(&mut [0]).map(drop)
        })?;
        let namespace = ours.read_exact(&mut [0]).and_then(|()| {
            map(child.pid())?;
            File::open(format!("/proc/{}/ns/user", child.pid()))
        });
        drop(ours);
        child.wait()?;
        Ok(namespace?.into())
    };
    make().context("make a user namespace (are unprivileged ones allowed?)")
}

//! Whose uid the jailed process has. Under root a uid from fairing's range is claimed by a lock that is held, through
//! an open descriptor, exactly as long as the process lives: two living pods never share a uid, and nothing is to be
//! cleaned up after a crash. A claim also names its pod, and is not given out again while that pod's files are there.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use contract::UidRange;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use crate::child::Child;

/// Where claims lie: machine-wide, for two stores must not give out the same uid.
const CLAIMS: &str = "/run/fairing/uids";

/// Longest path of a pod in a claim, bytes.
const MAX_CLAIM_BYTES: u64 = 4096;

/// The identity of the jailed process.
pub enum Identity {
    /// A claimed uid (and the gid of the same number).
    Own {
        /// The uid.
        uid: u32,
        /// Holds the claim.
        _claim: File,
    },
    /// The user who called.
    Users {
        /// What that uid is called in the process's user namespace.
        inside: u32,
    },
    /// Root in a user namespace of its own, in which every id is what it is outside, and no power reaches out of it.
    Root,
}

impl Identity {
    /// Claims a uid of the range for `pod` when called by root. A process that shares folders is uid 0, inside.
    ///
    /// # Errors
    /// When claims cannot be made, or every uid of the range is taken.
    pub fn claim(pod: &Path, range: UidRange, shares: bool) -> Result<Self> {
        let uid = geteuid();
        match (uid.is_root(), shares) {
            (true, false) => claim_in(Path::new(CLAIMS), range, pod),
            (true, true) => Ok(Self::Root),
            (false, false) => Ok(Self::Users {
                inside: uid.as_raw(),
            }),
            (false, true) => Ok(Self::Users { inside: 0 }),
        }
    }

    /// Whether the process has power over the host's mounts.
    pub(super) fn is_root(&self) -> bool {
        !matches!(self, Self::Users { .. })
    }

    /// The uid that the pod's own files are given to; `None` = they stay the caller's.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Own { uid, .. } => Some(*uid),
            Self::Users { .. } | Self::Root => None,
        }
    }

    pub(super) fn enter_user_namespace(&self) -> Result<()> {
        match self {
            Self::Own { .. } => Ok(()),
            Self::Users { inside } => enter_as(*inside),
            Self::Root => enter_with_all_ids(),
        }
    }

    pub(super) fn assume(&self) -> Result<()> {
        let uid = match self {
            Self::Own { uid, .. } => *uid,
            Self::Root => 0,
            Self::Users { .. } => return Ok(()),
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setgroups(&[]).context("drop supplementary groups")?;
        setresgid(gid, gid, gid).context("change gid")?;
        setresuid(uid, uid, uid).context("change uid")
    }
}

/// Enters a user namespace in which the caller's ids are called `inside`, and there are no others.
fn enter_as(inside: u32) -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .context("unshare (are unprivileged user namespaces allowed?)")?;
    fs::write("/proc/self/setgroups", "deny").context("write /proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("{inside} {uid} 1"))
        .context("write /proc/self/uid_map")?;
    let inside = if inside == 0 { 0 } else { gid.as_raw() };
    fs::write("/proc/self/gid_map", format!("{inside} {gid} 1")).context("write /proc/self/gid_map")
}

/// Enters a user namespace in which all ids are as they are. Such a map is written by a process outside, a child that
/// lives no longer than that takes.
fn enter_with_all_ids() -> Result<()> {
    let (entered, mut tell_entered) = io::pipe().context("make a pipe")?;
    let process = PathBuf::from(format!("/proc/{}", std::process::id()));
    let [uids, gids] = ["uid_map", "gid_map"].map(|name| same_ids(&process.join(name)));
    let (uids, gids) = (uids?, gids?);
    let child = Child::start(entered, |mut entered| {
        entered.read_exact(&mut [0])?;
        fs::write(process.join("uid_map"), uids)?;
        fs::write(process.join("gid_map"), gids)
    })?;
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare")?;
    tell_entered.write_all(&[0]).context("tell the child")?;
    child.wait().context("map all ids")
}

/// The map that gives every id of the caller's own map to itself.
fn same_ids(map: &Path) -> Result<String> {
    let known = fs::read_to_string(map).with_context(|| format!("read {}", map.display()))?;
    let lines = known.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace();
        let (first, count) = (numbers.next()?, numbers.nth(1)?);
        Some(format!("{first} {first} {count}\n"))
    });
    Ok(lines.collect())
}

/// Claims the first uid of the range that is free, by a file in `claims`.
fn claim_in(claims: &Path, range: UidRange, pod: &Path) -> Result<Identity> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(claims)
        .with_context(|| format!("make {}", claims.display()))?;
    for uid in range.uids() {
        let path = claims.join(uid.to_string());
        if let Some(claim) =
            try_claim(&path, pod).with_context(|| format!("claim uid by {}", path.display()))?
        {
            return Ok(Identity::Own { uid, _claim: claim });
        }
    }
    bail!(
        "every uid of pod-uids = \"{range}\" (FIRST:COUNT) belongs to a pod: remove pods that have ended (fairing gc, \
         fairing rm), or configure a larger range in config.toml"
    );
}

/// The claim at `path` if nobody has it: locked through a descriptor that cannot write it, for the jailed process keeps
/// that one.
fn try_claim(path: &Path, pod: &Path) -> Result<Option<File>> {
    let mut writable = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let claim = File::open(path)?;
    match claim.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut holder = Vec::new();
    (&claim).take(MAX_CLAIM_BYTES).read_to_end(&mut holder)?;
    if is_elsewhere(Path::new(OsStr::from_bytes(&holder)), pod) {
        return Ok(None);
    }
    writable.set_len(0)?;
    writable.write_all(pod.as_os_str().as_bytes())?;
    Ok(Some(claim))
}

/// Whether `holder` is another pod than `pod` whose files are still there: where it ran, or where it waits for removal.
fn is_elsewhere(holder: &Path, pod: &Path) -> bool {
    let exited = holder
        .file_name()
        .zip(holder.ancestors().nth(2))
        .map(|(uuid, pods)| pods.join("exited-garbage").join(uuid));
    !holder.as_os_str().is_empty()
        && holder != pod
        && (holder.exists() || exited.is_some_and(|exited| exited.exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_is_one_pods_until_its_files_are_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let claims = folder.path().join("uids");
        let [first, second] = ["first", "second"].map(|name| {
            let pod = folder.path().join("pods/run").join(name);
            fs::create_dir_all(&pod).expect("a pod directory");
            pod
        });
        let range = UidRange::new(100_000, 1).expect("a range");
        let claim = claim_in(&claims, range, &first).expect("a claim");
        assert_eq!(claim.owner(), Some(100_000));
        let refused = |pod: &Path| {
            let error = claim_in(&claims, range, pod).err().expect("no uid is free");
            assert!(
                error.to_string().contains("pod-uids = \"100000:1\""),
                "{error:#}"
            );
        };
        refused(&second);
        drop(claim);
        // The pod has ended, but its files still carry the uid.
        refused(&second);
        fs::remove_dir(&first).expect("the pod can be removed");
        assert!(claim_in(&claims, range, &second).is_ok());
    }
}

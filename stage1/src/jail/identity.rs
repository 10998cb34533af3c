//! Whose uid the jailed process has. Under root a uid from fairing's range, or a block of them, is claimed for as long as the
//! process lives, and not given out again while its pod's files are there.

use std::fs::File;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use contract::{BLOCK, UidRange};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use super::shares::{self, Taken};
use crate::plan::Plan;

/// Where claims lie: machine-wide, for two stores must not give out the same uid.
const CLAIMS: &str = "/run/fairing/uids";

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
        /// The process's user namespace, until it is entered.
        namespace: Option<OwnedFd>,
    },
    /// Root in a user namespace of its own, from which no power reaches out.
    Root {
        /// The namespace, until it is entered.
        namespace: Option<OwnedFd>,
        /// Its ids are a claimed block of the host's, and the claim; `None` where every id is what it is outside.
        block: Option<(u32, File)>,
        /// The pod's shares, whose files have the owners inside that they have outside.
        shares: Vec<Taken>,
    },
}

impl Identity {
    /// Claims a uid of the plan's range for `pod` when called by root. A process that shares folders, be it none yet, is uid 0
    /// inside.
    ///
    /// # Errors
    /// When claims cannot be made, every uid of the range is taken, or a share cannot be reached.
    pub fn claim(pod: &Path, plan: &Plan) -> Result<Self> {
        let uid = geteuid();
        match (uid.is_root(), plan.shares_folders()) {
            (true, false) => {
                let range = plan.uids;
                let (uid, claim) = claim_in(Path::new(CLAIMS), range.uids(), range, pod)?;
                Ok(Self::Own { uid, _claim: claim })
            }
            (true, true) => root(pod, plan),
            (false, shares_folders) => Ok(Self::Users {
                namespace: Some(users_namespace(shares_folders)?),
            }),
        }
    }

    /// The uid that the pod's own files are given to; `None` = they stay the caller's.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Own { uid, .. } => Some(*uid),
            Self::Users { .. } => None,
            Self::Root { block, .. } => block.as_ref().map(|(first, _)| *first),
        }
    }

    /// The mounts of the pod's shares, where they have been taken already.
    pub(super) fn shares(&mut self) -> Option<Vec<Taken>> {
        match self {
            Self::Root { shares, .. } => Some(mem::take(shares)),
            _ => None,
        }
    }

    /// Before the root is made: in a namespace of his own a user has power over mounts.
    pub(super) fn enter_users_namespace(&mut self) -> Result<()> {
        match self {
            Self::Users { namespace } => enter_namespace(namespace),
            _ => Ok(()),
        }
    }

    /// After that: root has power over mounts outside alone. Gives every capability anew, inside.
    pub(super) fn enter_roots_namespace(&mut self) -> Result<()> {
        match self {
            Self::Root { namespace, .. } => enter_namespace(namespace),
            _ => Ok(()),
        }
    }

    pub(super) fn assume(&self) -> Result<()> {
        let uid = match self {
            Self::Own { uid, .. } => *uid,
            Self::Root { .. } => 0,
            Self::Users { .. } => return Ok(()),
        };
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setgroups(&[]).context("drop supplementary groups")?;
        setresgid(gid, gid, gid).context("change gid")?;
        setresuid(uid, uid, uid).context("change uid")
    }
}

/// Root inside, with a block of ids if there are blocks and all shares can be mapped to one. Of those that may come later nobody
/// knows that.
fn root(pod: &Path, plan: &Plan) -> Result<Identity> {
    let (range, shares) = (plan.uids, &*plan.shares);
    if plan.later_shares == 0 && range.blocks().next().is_some() {
        let (first, claim) = claim_in(Path::new(CLAIMS), range.blocks(), range, pod)?;
        let mapped = userns::with_ids(&format!("0 {first} {BLOCK}")).and_then(|namespace| {
            let shares = shares::take(shares, Some(namespace.as_fd()))?;
            Ok((namespace, shares))
        });
        // What fails for another reason than the map fails again.
        if let Ok((namespace, shares)) = mapped {
            return Ok(Identity::Root {
                namespace: Some(namespace),
                block: Some((first, claim)),
                shares,
            });
        }
    }
    Ok(Identity::Root {
        namespace: Some(userns::with_same_ids()?),
        block: None,
        shares: shares::take(shares, None)?,
    })
}

/// A user namespace for a user who is not root: with his own ids alone, or, for folders of his, as root and with his subordinate
/// ids, if that can be.
fn users_namespace(shares_folders: bool) -> Result<OwnedFd> {
    match shares_folders
        .then(userns::with_subordinate_ids)
        .transpose()
    {
        Ok(Some(Some(namespace))) => return Ok(namespace),
        Ok(_) => {}
        Err(error) => crate::tell(&format!(
            "all files of shared folders are root's: {error:#}"
        )),
    }
    userns::with_own_ids(shares_folders)
}

/// Why files of a caller's shared folders have no other owner than root inside; none if they have.
pub fn no_owners() -> Option<String> {
    match (!geteuid().is_root()).then(userns::with_subordinate_ids)? {
        Ok(Some(_)) => None,
        Ok(None) => Some(
            "/etc/subuid and /etc/subgid have no ids for you (sudo usermod --add-subuids 200000-265535 --add-subgids \
             200000-265535 $USER)"
                .into(),
        ),
        Err(error) => Some(format!("{error:#}")),
    }
}

fn enter_namespace(namespace: &mut Option<OwnedFd>) -> Result<()> {
    let namespace = namespace.take();
    namespace.map_or(Ok(()), |namespace| {
        Ok(setns(namespace, CloneFlags::CLONE_NEWUSER)?)
    })
}

/// Claims for `pod` the first of `uids`, which are of `range`, that is free, by a file in `claims`.
fn claim_in(
    claims: &Path,
    uids: impl Iterator<Item = u32>,
    range: UidRange,
    pod: &Path,
) -> Result<(u32, File)> {
    userns::claim(claims, uids, pod, has_files)?.with_context(|| {
        format!(
            "every uid of pod-uids = \"{range}\" (FIRST:COUNT) belongs to a pod: remove pods that have ended (fairing gc, \
             fairing rm), or configure a larger range in config.toml"
        )
    })
}

/// Whether files of the pod `holder` are still there: where it ran, or where it waits for removal.
fn has_files(holder: &Path) -> bool {
    let exited = holder
        .file_name()
        .zip(holder.ancestors().nth(2))
        .map(|(uuid, pods)| pods.join("exited-garbage").join(uuid));
    holder.exists() || exited.is_some_and(|exited| exited.exists())
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let claim = |pod: &Path| claim_in(&claims, range.uids(), range, pod);
        let (uid, held) = claim(&first).expect("a claim");
        assert_eq!(uid, 100_000);
        let refused = |pod: &Path| {
            let error = claim(pod).expect_err("no uid is free");
            assert!(
                error.to_string().contains("pod-uids = \"100000:1\""),
                "{error:#}"
            );
        };
        refused(&second);
        drop(held);
        // The pod has ended, but its files still carry the uid.
        refused(&second);
        fs::remove_dir(&first).expect("the pod can be removed");
        assert!(claim(&second).is_ok());
    }
}

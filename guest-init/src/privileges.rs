//! What an app may do: capabilities, ids, limits. Called by `launch` as the last steps before the command.

use anyhow::{Context, Result};
use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::account::Account;

/// The bounding set of an app that asks for no other: the contract's default of 14.
const BOUNDING: [Capability; 14] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_RAW,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETFCAP,
    Capability::CAP_SYS_CHROOT,
];

/// Open files: what old programs can loop over, and what servers may raise it to.
const OPEN_FILES: (u64, u64) = (1024, 512 << 10);

/// Takes on the app's account and, if `restrict`ed, keeps none of PID 1's powers beyond the default set.
pub fn drop_to(account: &Account, restrict: bool) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1).context("limit open files")?;
    // The bounding set first: lowering it takes CAP_SETPCAP, which a user does not have.
    for capability in caps::all()
        .into_iter()
        .filter(|capability| restrict && !BOUNDING.contains(capability))
    {
        caps::drop(None, CapSet::Bounding, capability)
            .with_context(|| format!("drop {capability}"))?;
    }
    let groups: Vec<_> = account.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("set the supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setresgid(gid, gid, gid).with_context(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).with_context(|| format!("become user {uid}"))
}

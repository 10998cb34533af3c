//! What an app may do: capabilities, ids, limits. Called by `launch` as the last steps before the command.

use std::fs;

use anyhow::{Context, Result};
use caps::CapSet;
use guest_init::protocol::Powers;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::account::Account;

/// Open files: what old programs can loop over, and what servers may raise it to.
const OPEN_FILES: (u64, u64) = (1024, 512 << 10);

/// Takes on `account`, and gives up what `powers` leaves out.
pub fn drop_to(account: &Account, powers: &Powers) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1).context("limit open files")?;
    fs::write("/proc/self/oom_score_adj", powers.oom_score_adj.to_string())
        .context("set the readiness to be killed for memory")?;
    // The bounding set first: lowering it takes CAP_SETPCAP, which a user does not have.
    if let Some(kept) = &powers.capabilities {
        for capability in caps::all() {
            if !kept.contains(&capability.to_string()) {
                caps::drop(None, CapSet::Bounding, capability)
                    .with_context(|| format!("drop {capability}"))?;
            }
        }
    }
    let groups: Vec<_> = account.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("set the supplementary groups")?;
    if powers.no_new_privileges {
        set_no_new_privs().context("give up new privileges")?;
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setresgid(gid, gid, gid).with_context(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).with_context(|| format!("become user {uid}"))
}

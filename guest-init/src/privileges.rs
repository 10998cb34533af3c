//! What an app may do: capabilities, ids, limits. Called by `launch` as the last steps before the command.

use std::fs;

use anyhow::{Context, Result};
use caps::CapSet;
use guest_init::protocol::{Powers, Resource, ResourceLimit};
use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::account::Account;

/// Open files: what old programs can loop over, and what servers may raise it to.
const OPEN_FILES: (u64, u64) = (1024, 512 << 10);

/// Limits the process, by what every app has and then by `limits`.
pub fn limit(limits: &[ResourceLimit]) -> Result<()> {
    let (soft, hard) = OPEN_FILES;
    set_limit(Resource::Nofile, soft, hard).context("limit open files")?;
    for limit in limits {
        set_limit(limit.resource, limit.soft, limit.hard)
            .with_context(|| format!("set the limit {limit:?}"))?;
    }
    Ok(())
}

fn set_limit(resource: Resource, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    #[expect(
        unsafe_code,
        reason = "safe bindings take names of their own for the numbers"
    )]
    // SAFETY: the kernel reads one `rlimit`.
    let result = unsafe { libc::setrlimit(resource as u32, &raw const limit) };
    Errno::result(result).map(drop)
}

/// Takes on `account`, and gives up what `powers` leaves out.
pub fn drop_to(account: &Account, powers: &Powers) -> Result<()> {
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
    // Without it the kernel takes a filter from root alone.
    let filtered = !powers.seccomp.is_empty() && account.uid != 0;
    if powers.no_new_privileges || filtered {
        set_no_new_privs().context("give up new privileges")?;
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    setresgid(gid, gid, gid).with_context(|| format!("become group {gid}"))?;
    setresuid(uid, uid, uid).with_context(|| format!("become user {uid}"))?;
    if !powers.seccomp.is_empty() {
        // Last of all: what it leaves out may have been needed until here.
        filter_calls(&powers.seccomp).context("filter the system calls")?;
    }
    Ok(())
}

/// Puts a filter on the process, by [`Powers::seccomp`].
fn filter_calls(instructions: &[u64]) -> Result<()> {
    const SET_MODE_FILTER: libc::c_ulong = 1;
    let mut program: Vec<_> = instructions.iter().copied().map(instruction).collect();
    let program = libc::sock_fprog {
        len: program.len().try_into()?,
        filter: program.as_mut_ptr(),
    };
    #[expect(
        unsafe_code,
        reason = "no safe binding of seccomp among the crates used"
    )]
    // SAFETY: the kernel reads `len` instructions, which are alive until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(result)?;
    Ok(())
}

/// An instruction out of its number.
fn instruction(packed: u64) -> libc::sock_filter {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = packed.to_be_bytes();
    libc::sock_filter {
        code: u16::from_be_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_be_bytes([k0, k1, k2, k3]),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn instruction_has_its_parts_from_the_highest_bits_on() {
        let instruction = super::instruction(0x0015_0203_0405_0607);
        assert_eq!((instruction.code, instruction.jt), (0x15, 2));
        assert_eq!((instruction.jf, instruction.k), (3, 0x0405_0607));
    }
}

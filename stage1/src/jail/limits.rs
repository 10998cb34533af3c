//! Resource limits of the jailed process.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors: devices, eventfds, vCPUs, disks and 1,024 vsock connections.
const OPEN_FILES: u64 = 2048;

/// Threads of this uid: 32 vCPUs, 14 devices, 4 streams, the session. Without root the uid is the user's, with
/// processes of his own, and the limit would count those.
const THREADS: u64 = 128;

/// Sets hard and soft limits alike.
pub(super) fn set() -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let limits = [
        (Resource::RLIMIT_NOFILE, Some(OPEN_FILES), "open files"),
        (Resource::RLIMIT_NPROC, root.then_some(THREADS), "threads"),
        (Resource::RLIMIT_CORE, Some(0), "core dumps"),
        (Resource::RLIMIT_MSGQUEUE, Some(0), "message queues"),
        (Resource::RLIMIT_MEMLOCK, Some(0), "locked memory"),
    ];
    for (resource, wanted, name) in limits {
        let Some(wanted) = wanted else { continue };
        let (_, hard) = getrlimit(resource).with_context(|| format!("read the limit of {name}"))?;
        let limit = wanted.min(hard);
        setrlimit(resource, limit, limit).with_context(|| format!("limit {name} to {limit}"))?;
    }
    Ok(())
}

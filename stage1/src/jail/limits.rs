//! Resource limits of the jailed process.

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors: devices, eventfds, vCPUs, disks, the files of images and 1,024 vsock connections.
const OPEN_FILES: u64 = 4096;

/// Descriptors of a machine with shares: the file server keeps one for each file that the guest remembers. The most that a
/// kernel allows by default (fs.nr_open).
const OPEN_FILES_WITH_SHARES: u64 = 1 << 20;

/// Sets hard and soft limits alike, each as far as the process may. Without root the uid is the user's, with processes of
/// his own, and a limit of threads would count those.
pub(super) fn set(shares: bool, threads: Option<u32>) -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let files = if shares {
        OPEN_FILES_WITH_SHARES
    } else {
        OPEN_FILES
    };
    let threads = threads.filter(|_| root).map(u64::from);
    let threads = threads.map(|most| (Resource::RLIMIT_NPROC, most, "threads"));
    let limits = [
        (Resource::RLIMIT_NOFILE, files, "open files"),
        (Resource::RLIMIT_CORE, 0, "core dumps"),
        (Resource::RLIMIT_MSGQUEUE, 0, "message queues"),
        (Resource::RLIMIT_MEMLOCK, 0, "locked memory"),
    ];
    for (resource, wanted, name) in limits.into_iter().chain(threads) {
        if setrlimit(resource, wanted, wanted).is_ok() {
            continue;
        }
        let (_, hard) = getrlimit(resource).with_context(|| format!("read the limit of {name}"))?;
        let limit = wanted.min(hard);
        setrlimit(resource, limit, limit).with_context(|| format!("limit {name} to {limit}"))?;
    }
    Ok(())
}

/// How many descriptors the guest's files may take: what is left of the limit in force.
///
/// # Errors
/// When the limit cannot be read.
pub fn files_of_guest() -> Result<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    Ok(soft.saturating_sub(OPEN_FILES).max(soft / 2))
}

//! The jail: what the process gives up before the guest's first instruction. One visible list of steps, in the order
//! in which the kernel allows them; the thread filters are stacked later, by each thread, on the base filter set here.
//!
//! With root the process becomes a uid of its own. Without root it keeps the user's uid in a user namespace of its own:
//! pods of one user are then kept apart by their mount namespaces and filters. A process that shares folders of the host
//! is uid 0 of a user namespace of its own, with the few capabilities there that a file server needs.

mod identity;
mod landlock;
pub mod later;
mod limits;
mod privileges;
mod root;
pub mod seccomp;
pub mod shares;

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use contract::PodDir;

pub use identity::{Identity, no_owners};
pub use limits::files_of_guest;

use crate::plan::Plan;

/// What is left of the host inside.
pub struct Inside {
    /// The pod's report folder, a mount of its own: its parent is itself.
    pub report: OwnedFd,
    /// This process's descriptors, as /proc shows them, where folders are shared: the file server opens files anew through them.
    pub descriptors: Option<File>,
}

/// Shuts the calling process, which must have a single thread, into a root that holds the shares of `plan` and nothing else.
/// Everything else the machine needs must be open.
///
/// # Errors
/// When a step fails; the process is then good for nothing but to report it and end.
pub fn enter(pod: &PodDir, identity: &mut Identity, plan: &Plan) -> Result<Inside> {
    let shared = plan.shares_folders();
    // Raising a limit needs privilege, lowering one does not.
    limits::set(shared, plan.growth.caps.processes).context("set resource limits")?;
    const USER_NAMESPACE: &str = "enter a user namespace";
    identity.enter_users_namespace().context(USER_NAMESPACE)?;
    // Needs CAP_SYS_ADMIN, so before privileges go.
    let inside =
        root::enter(pod, identity.shares(), plan).context("enter an empty root file system")?;
    identity.enter_roots_namespace().context(USER_NAMESPACE)?;
    // Dropping the bounding set needs CAP_SETPCAP: before the uid changes.
    privileges::drop_bounding_set().context("drop the capability bounding set")?;
    identity.assume().context("change to the pod's own uid")?;
    // setuid to a non-zero uid has emptied these; in a user namespace nothing has.
    privileges::drop_rest(shared).context("drop capabilities")?;
    // Mounts nothing any more, and needs no_new_privs.
    landlock::confine(&inside.report).context("confine the process by Landlock")?;
    seccomp::confine_process(shared).context("install the process's seccomp filter")?;
    Ok(inside)
}

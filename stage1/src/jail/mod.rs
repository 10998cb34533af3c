//! The jail: what the process gives up before the guest's first instruction. One visible list of steps, in the order
//! in which the kernel allows them; the thread filters are stacked later, by each thread, on the base filter set here.
//!
//! With root the process becomes a uid of its own. Without root it keeps the user's uid in a user namespace of its own:
//! pods of one user are then kept apart by their mount namespaces and filters.

mod identity;
mod limits;
mod privileges;
mod root;
pub mod seccomp;

use anyhow::{Context, Result};
use contract::PodDir;

pub use identity::Identity;

use crate::report::Report;

/// Shuts the calling process, which must have a single thread, into an empty root that holds the pod's report folder
/// and nothing else; returns that folder as it is called inside. Everything else the machine needs must be open.
///
/// # Errors
/// When a step fails; the process is then good for nothing but to report it and end.
pub fn enter(pod: &PodDir, identity: &Identity) -> Result<Report> {
    // A user without root gets the right to the steps below only in a user namespace of his own.
    identity
        .enter_user_namespace()
        .context("enter a user namespace")?;
    // Needs CAP_SYS_ADMIN, so before privileges go.
    root::enter(pod).context("enter an empty root file system")?;
    // Lowering hard limits needs no privilege, but NPROC counts the uid that is about to be taken.
    limits::set().context("set resource limits")?;
    // Dropping the bounding set needs CAP_SETPCAP: before the uid changes.
    privileges::drop_bounding_set().context("drop the capability bounding set")?;
    identity.assume().context("change to the pod's own uid")?;
    // setuid to a non-zero uid has emptied these; in a user namespace nothing has.
    privileges::drop_rest().context("drop capabilities")?;
    seccomp::confine_process().context("install the process's seccomp filter")?;
    Ok(Report::new(root::REPORT))
}

//! The `probe` entrypoint: whether this host's KVM can run a pod, and what else differs between hosts, as one JSON object on stdout, for `fairing doctor`.

use anyhow::Result;
use serde::Serialize;

use crate::{assets, jail};

#[derive(Serialize)]
struct Answer {
    /// `hardware`, `software` or `none`.
    kvm: &'static str,
    /// Why it is not `hardware`; empty if it is.
    reason: String,
    /// Why files of shared folders are all root's; empty if they keep their owners.
    no_owners: String,
}

/// Prints the answer.
///
/// # Errors
/// When it cannot be printed.
pub fn probe() -> Result<u8> {
    let (kvm, reason) = match assets::open_kvm().and_then(|kvm| vmm::probe::probe(&kvm)) {
        Ok(probe) if probe.boots_kernels => ("hardware", String::new()),
        Ok(probe) => ("software", probe.reason.unwrap_or_default()),
        Err(error) => ("none", format!("{error:#}")),
    };
    let answer = Answer {
        kvm,
        reason,
        no_owners: jail::no_owners().unwrap_or_default(),
    };
    println!("{}", serde_json::to_string(&answer)?);
    Ok(0)
}

//! The `probe` entrypoint: whether this host's KVM can run a pod, as one JSON object on stdout, for `fairing doctor`.

use anyhow::Result;
use serde::Serialize;

use crate::assets;

#[derive(Serialize)]
struct Answer {
    /// `hardware`, `software` or `none`.
    kvm: &'static str,
    /// Why it is not `hardware`; empty if it is.
    reason: String,
}

/// Prints the answer.
///
/// # Errors
/// When it cannot be printed.
pub fn probe() -> Result<u8> {
    let answer = match assets::open_kvm().and_then(|kvm| vmm::probe::probe(&kvm)) {
        Ok(probe) if probe.boots_kernels => Answer {
            kvm: "hardware",
            reason: String::new(),
        },
        Ok(probe) => Answer {
            kvm: "software",
            reason: probe.reason.unwrap_or_default(),
        },
        Err(error) => Answer {
            kvm: "none",
            reason: format!("{error:#}"),
        },
    };
    println!("{}", serde_json::to_string(&answer)?);
    Ok(0)
}

//! The `probe` entrypoint: whether this host's KVM can run a pod, and what else hosts differ in, as one JSON object on stdout, for
//! `fairing doctor`.

use serde_json::json;

use crate::{assets, jail};

/// Prints the answer: `kvm` is `hardware`, `software` or `none`, and `reason` why it is not `hardware`; `no_owners` is why all files
/// of shared folders are root's, empty where they keep their owners.
pub fn probe() {
    let (kvm, reason) = match assets::open_kvm().and_then(|kvm| vmm::probe::probe(&kvm)) {
        Ok(probe) if probe.boots_kernels => ("hardware", String::new()),
        Ok(probe) => ("software", probe.reason.unwrap_or_default()),
        Err(error) => ("none", format!("{error:#}")),
    };
    let no_owners = jail::no_owners().unwrap_or_default();
    println!(
        "{}",
        json!({"kvm": kvm, "reason": reason, "no_owners": no_owners})
    );
}

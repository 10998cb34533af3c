//! Landlock, a wall behind the empty root: files are opened beneath that root and in the report folder alone, also by way of a
//! descriptor of another folder, as the pod's lock is one. Folders that are mounted into the root later are beneath it, too.

use std::os::fd::OwnedFd;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use anyhow::Result;

/// The newest whose rights are known here; of a kernel that is older, those that it has.
const KNOWN: ABI = ABI::V6;

/// Confines the calling thread and those that it will start. A kernel before 5.19 could move no file from one folder of a share
/// to another then, and confines nothing.
pub(super) fn confine(report: &OwnedFd) -> Result<()> {
    let all = AccessFs::from_all(KNOWN);
    Ruleset::default()
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, all))?
        .add_rule(PathBeneath::new(report, all))?
        .restrict_self()?;
    Ok(())
}

//! Capabilities, no_new_privs and dumpability.

use anyhow::{Context, Result};
use caps::CapSet;
use nix::sys::prctl;

/// Empties the bounding set: no later exec could regain anything.
pub(super) fn drop_bounding_set() -> Result<()> {
    caps::clear(None, CapSet::Bounding).context("clear the bounding set")
}

/// Empties every other set, and bars the ways back.
pub(super) fn drop_rest() -> Result<()> {
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).with_context(|| format!("clear the {set:?} set"))?;
    }
    prctl::set_no_new_privs().context("set no_new_privs")?;
    // Other processes of the same uid must neither trace this one nor read its memory.
    prctl::set_dumpable(false).context("clear dumpable")
}

//! Capabilities, no_new_privs and dumpability.

use anyhow::{Context, Result};
use caps::{CapSet, Capability};
use nix::sys::prctl;

/// Empties the bounding set: no later exec could regain anything.
pub(super) fn drop_bounding_set() -> Result<()> {
    caps::clear(None, CapSet::Bounding).context("clear the bounding set")
}

/// What a file server needs in its own user namespace: to act for any user of the guest. Not CAP_DAC_READ_SEARCH, with
/// which a file handle would reach every file of a file system.
const OF_FILE_SERVER: [Capability; 7] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETFCAP,
];

/// Empties every other set, but for what a file server needs if this is to be one, and bars the ways back.
pub(super) fn drop_rest(file_server: bool) -> Result<()> {
    let kept = OF_FILE_SERVER.into_iter().filter(|_| file_server).collect();
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).with_context(|| format!("clear the {set:?} set"))?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).with_context(|| format!("cut down the {set:?} set"))?;
    }
    prctl::set_no_new_privs().context("set no_new_privs")?;
    // Other processes of the same uid must neither trace this one nor read its memory.
    prctl::set_dumpable(false).context("clear dumpable")
}

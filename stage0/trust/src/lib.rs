//! Who may have made an image: of App Container images the OpenPGP keys that are trusted, and detached signatures by them; of
//! images of registries what a policy demands (`policy`).
//!
//! Used by the `fairing` command, on its thread. Folders of keys are laid out as rkt lays them out. Images, signatures
//! and keys come from strangers: all are bounded in size, and a key counts only for what its own signatures vouch for.
//! RFC 9580, "OpenPGP".
#![warn(missing_docs)]

mod certificate;
mod keys;
mod message;
pub mod policy;
mod signature;

pub use certificate::{Certificate, MAX_KEY_BYTES};
pub use keys::{Added, Keys, Scope};
pub use signature::{MAX_SIGNATURE_BYTES, Signer, verify};

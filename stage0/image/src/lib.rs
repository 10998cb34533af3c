//! Container images: formats read, layers merged into one EROFS file, the store that keeps them.
//!
//! Used by the `fairing` command. Runs on the caller's thread, needs no root, and never unpacks an image on the host.
#![warn(missing_docs)]

mod blob;
mod decompress;
mod digest;
mod ending;
mod erofs;
mod folder;
mod layer;
mod limits;
mod outgoing;
mod received;
mod scratch;
mod source;
mod store;
mod tree;

pub use erofs::{Finished, Losses, Writer};
pub use limits::Limits;
pub use received::{Place, extract, reframe};
pub use source::Progress;
pub use store::{Archive, Image, ImportOptions, Kind, Lease, Store};

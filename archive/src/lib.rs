//! Folders as tar streams: how files leave a machine, and how the host's come into one.
//!
//! Used by guest-init and by stage 0. Writes ustar headers with PAX records (POSIX.1-2017, "pax Interchange Format") for what
//! does not fit them, and `SCHILY.xattr.` records for extended attributes. Reads no tar: who does, reads a stranger's.
#![warn(missing_docs)]

mod entry;
mod pack;
mod sparse;

pub use entry::{Entry, Kind, Xattrs};
pub use pack::pack;
pub use sparse::SparseMap;

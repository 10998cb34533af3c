//! All that passes between stage 0 and stage 1: manifests, file names in a pod directory, argv and annotations; and how much is
//! read of a file that a stranger may have written.
//!
//! Follows App Container 0.8.11 and rkt's stage 1 interface, version 6. Used by both stages; runs nothing itself.
#![warn(missing_docs)]

pub mod annotation;
pub mod argv;
pub mod bounded;
pub mod capabilities;
pub mod image;
pub mod name;
mod nullable;
pub mod pod;
pub mod pod_dir;
mod process;
pub mod quantity;
mod resource_limit;
pub mod signal;
#[cfg(test)]
mod tests;
mod uids;

pub use argv::RunArguments;
pub use image::ImageManifest;
pub use pod::PodManifest;
pub use pod_dir::{PodDir, erofs_files, network_namespace, present_erofs_files};
pub use process::{PodProcess, is_running};
pub use resource_limit::ResourceLimit;
pub use uids::{BLOCK, UidRange};

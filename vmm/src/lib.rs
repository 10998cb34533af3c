//! One microVM on KVM. Knows nothing of pods, images or containers.
#![warn(missing_docs)]

pub mod device;
pub mod memory;

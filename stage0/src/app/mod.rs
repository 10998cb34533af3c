//! From an image and the command line to an app of a pod manifest: pure, no files but environment files.

mod build;
mod environment;
mod exec;
mod isolators;
mod volumes;

pub use build::{PodRequest, pod_manifest};
use environment::Layers;

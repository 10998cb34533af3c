//! From an image and the command line to an app of a pod manifest: pure, no files but environment files and pod manifests.

mod build;
mod environment;
mod exec;
mod isolators;
mod pod_file;
mod ports;
mod volumes;

pub use build::{PodRequest, added_app, pod_manifest};
use environment::Layers;
pub use pod_file::PodFile;
pub use ports::check as check_ports;

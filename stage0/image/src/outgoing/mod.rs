//! Images on their way out of the store: their files read back from the EROFS file, without a mount and without root.

mod configuration;
mod device;
mod export;
mod files;
mod layer;
mod parts;
mod render;
mod sum;
pub(crate) mod tar;
#[cfg(test)]
pub(crate) mod tests;

pub use configuration::{annotations, configuration, labels};
pub use export::{aci, docker, oci, write_aci};
pub use files::{Files, Found, Shape};
pub use parts::Parts;
pub use render::render;
pub use sum::Sum;

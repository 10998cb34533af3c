//! Container registries: what a reference means there is fetched into an OCI layout, and a layout is sent there.
//!
//! Used by the `fairing` command. Knows nothing of images in the store: who pulls imports the layout as any other. A
//! registry is a stranger, like all that it sends: every answer is bounded in size and time, every blob is hashed while
//! it arrives. Runs on the caller's thread and a few of its own; the HTTP client has one for each host.
#![warn(missing_docs)]

mod access;
mod answer;
mod auth;
mod blobs;
mod challenge;
mod client;
mod config;
mod credentials;
mod download;
mod endpoint;
mod manifest;
mod pull;
mod push;
mod signatures;
mod tls;

pub use access::{Access, Options, Verify};
pub use blobs::Blobs;
pub use credentials::Credentials;
pub use image::oci::Reference;
pub use pull::{Found, Progress};
pub use push::{Pushed, push};
pub use signatures::Attached;
pub use transfer::Patience;

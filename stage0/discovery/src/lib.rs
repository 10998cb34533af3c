//! App Container images by their names: the web page that says where they are, and the way from there to this host.
//!
//! Used by the `fairing` command, on its thread; the HTTP client has one of its own. Knows nothing of the store and of
//! signatures. Servers are strangers: pages, keys and signatures are bounded in size and time, images in size and
//! pace, redirects in number. appc specification 0.8.11, "App Container Image Discovery".
#![warn(missing_docs)]

mod cache;
mod client;
mod discover;
mod download;
mod name;
mod page;
mod template;

pub use client::{Access, Client};
pub use discover::{image, keys};
pub use download::{Download, Fetched, Remembered};
pub use name::Name;
pub use page::{Endpoint, Page};
pub use transfer::Patience;

//! Networks as CNI describes them: configurations are read, and the plugins that they name are executed unchanged.
//!
//! Container Network Interface specification, versions 0.3.0 to 1.1.0. Which addresses an interface has is not read out of
//! results, which versions write differently, but is for the caller to look at.
#![warn(missing_docs)]

mod attachment;
mod built_in;
mod choice;
mod dns;
mod network;
mod plugin;
mod ports;
mod rates;
mod records;

pub use self::attachment::Attachment;
pub use self::built_in::{DEFAULT, built_in};
pub use self::choice::choose;
pub use self::dns::{name_servers, resolv, resolv_conf};
pub use self::network::Network;
pub use self::plugin::{Container, plugin_folders};
pub use self::ports::{Mapping, lead, look_free, reserve};
pub use self::rates::limit;
pub use self::records::{Records, replace};

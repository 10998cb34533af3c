//! Nearly valid input for property tests: what a stranger sends who knows the format. Noise ends at the first check of
//! a parser; a valid document with one or two faults gets behind it. And requests of a guest, from which to make such.
#![warn(missing_docs)]

mod bytes;
pub mod fuse;
mod json;

pub use bytes::{Fault, damage, faults};
pub use json::{JsonFault, damage_json, json_faults};

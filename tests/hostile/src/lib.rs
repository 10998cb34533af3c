//! Nearly valid input for property tests: what a stranger sends who knows the format. Noise ends at the first check of
//! a parser; a valid document with one or two faults gets behind it.
#![warn(missing_docs)]

mod bytes;
mod json;

pub use bytes::{Fault, damage, faults};
pub use json::{JsonFault, damage_json, json_faults};

//! What stage 1 and PID 1 of the guest have in common: the protocol between them, packets to other processes of their own
//! machine, and how limits are written. The program itself is `main.rs`.
#![warn(missing_docs)]

mod cgroup_files;
pub mod packets;
pub mod protocol;

pub use cgroup_files::{cgroup_files, oom_kills};

//! The protocol between stage 1 and PID 1 of the guest. The program itself is `main.rs`.
#![warn(missing_docs)]

pub mod protocol;

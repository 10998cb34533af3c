//! What passes between the client and the agent: constants, frames, the greeting, the command to run, and the
//! queue of bytes that waits for a descriptor. Pure values; no threads, no descriptors but the one a queue is
//! written to.

pub mod command;
pub mod frame;
pub mod greeting;
pub mod link;
pub mod outbox;
pub mod spec;
pub mod strings;

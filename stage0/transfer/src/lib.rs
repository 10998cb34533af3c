//! What is brought over HTTP, whoever sends it: how long it is waited for, how often it is asked for, how much of it is taken.
//!
//! Used by `registry` and `discovery`, on whatever thread they ask from. Knows neither of their protocols. Servers are strangers.
#![warn(missing_docs)]

mod answer;
mod pace;
mod patience;
mod retry;

pub use answer::{begins_at, read, retry_after};
pub use pace::{Paced, broken};
pub use patience::Patience;
pub use retry::{Attempts, Cancel, Fault, is_distrust};

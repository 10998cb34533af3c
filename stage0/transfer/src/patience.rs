//! How long a server is waited for, and how often it is asked again.

use std::time::Duration;

/// Bounds of time; tests have shorter ones.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Until a connection is there.
    pub connect: Duration,
    /// Until an answer begins, and between two pieces of it.
    pub answer: Duration,
    /// Within each time of this length, a part of an answer of at least `least_bytes` must arrive.
    pub pace: Duration,
    /// See `pace`.
    pub least_bytes: u64,
    /// Attempts that bring nothing new, before it is given up.
    pub attempts: u32,
    /// Before the second attempt; before each further one twice as long.
    pub pause: Duration,
    /// Longest pause, whatever a server asks for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            pace: Duration::from_secs(30),
            least_bytes: 30 << 10,
            attempts: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}

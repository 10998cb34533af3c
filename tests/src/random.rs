//! Random numbers whose seed is told, so that a failure can be looked into.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::tell;

/// A row of random numbers (xorshift).
pub struct Random(u64);

impl Random {
    /// A new row; tells its seed.
    ///
    /// # Panics
    /// On a machine that lives before 1970.
    pub fn seeded() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seed = u64::from(now.expect("a clock").subsec_nanos()) | 1;
        tell(&format!("seed {seed}"));
        Self(seed)
    }

    /// A random number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// A random moment within `span`.
    ///
    /// # Panics
    /// For spans of thousands of years.
    pub fn moment(&mut self, span: Duration) -> Duration {
        let micros = u64::try_from(span.as_micros()).expect("a short time");
        Duration::from_micros(self.below(micros.max(1)))
    }
}

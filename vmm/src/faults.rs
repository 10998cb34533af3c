//! What a guest does wrong, for the log, which is the host's: what it does again and again is told of a few times.

use std::fmt::Arguments;
use std::sync::atomic::{AtomicU32, Ordering};

/// Faults that are logged before there is silence about them.
const MAX_LOGGED: u32 = 16;

/// How many there have been, as far as that matters.
#[derive(Default)]
pub struct Faults(AtomicU32);

impl Faults {
    /// Logs one of the first.
    pub fn log(&self, what: Arguments<'_>) {
        let is_told = self.0.load(Ordering::Relaxed) < MAX_LOGGED;
        if is_told && self.0.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED {
            tracing::warn!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_no_further_than_they_are_logged() {
        let faults = Faults::default();
        (0..100).for_each(|fault| faults.log(format_args!("{fault}")));
        assert_eq!(faults.0.into_inner(), MAX_LOGGED);
    }
}

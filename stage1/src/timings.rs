//! Where the time of a start went, for `--timings` and the benchmark.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Moments in the order they were reached; a name is recorded once.
#[derive(Default)]
pub struct Timings(Mutex<Vec<(&'static str, Duration)>>);

impl Timings {
    /// Records that `name` was reached now.
    pub fn mark(&self, name: &'static str) {
        let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
            return;
        };
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.iter().all(|(known, _)| *known != name) {
            marks.push((name, now.into()));
        }
    }

    /// One line a mark: its name and the nanoseconds of CLOCK_MONOTONIC at which it was reached.
    pub fn report(&self) -> String {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks
            .iter()
            .map(|(name, at)| format!("fairing-timing {name} {}\n", at.as_nanos()))
            .collect()
    }
}

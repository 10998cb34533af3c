//! How much may pass a card in one direction. A bucket that is full at first and fills again evenly: what is behind is a time, at
//! which it will be full again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// For so long a direction that was idle may be faster.
const BURST: Duration = Duration::from_millis(100);

/// The most of one direction; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes in a second, headers of Ethernet included.
    pub bytes: Option<u64>,
    /// Frames in a second, however many segments they have.
    pub frames: Option<u64>,
}

/// What has passed in one direction; clones share it.
#[derive(Clone)]
pub struct Meter {
    limit: Limit,
    /// When the bucket of bytes will be full again, and that of frames.
    full_at: Arc<Mutex<[Instant; 2]>>,
}

impl Meter {
    /// One by which nothing has passed.
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            full_at: Arc::new(Mutex::new([Instant::now(); 2])),
        }
    }

    /// How long the next frame is to wait; `None` = not at all.
    pub fn wait(&self) -> Option<Duration> {
        match self.limit == Limit::default() {
            true => None,
            false => self.wait_at(Instant::now()),
        }
    }

    fn wait_at(&self, now: Instant) -> Option<Duration> {
        let full_at = lock(&self.full_at);
        let waits = full_at
            .iter()
            .map(|full_at| full_at.saturating_duration_since(now));
        waits
            .max()?
            .checked_sub(BURST)
            .filter(|wait| !wait.is_zero())
    }

    /// A frame of so many bytes has passed.
    pub fn passed(&self, bytes: usize) {
        if self.limit != Limit::default() {
            self.passed_at(Instant::now(), bytes as u64);
        }
    }

    fn passed_at(&self, now: Instant, bytes: u64) {
        let amounts = [(bytes, self.limit.bytes), (1, self.limit.frames)];
        for (full_at, (amount, limit)) in lock(&self.full_at).iter_mut().zip(amounts) {
            if let Some(limit) = limit {
                // At most a frame's bytes: seconds that a u64 of nanoseconds holds.
                let takes = Duration::from_nanos(amount * 1_000_000_000 / limit.max(1));
                *full_at = (*full_at).max(now) + takes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many frames of 1,000 bytes pass within so many milliseconds, by one meter and its clones in turns.
    fn pass(meter: &Meter, ms: u64) -> u64 {
        let begun = lock(&meter.full_at)[0];
        let (mut now, mut passed) = (begun, 0);
        let meters = [meter.clone(), meter.clone()];
        while now < begun + Duration::from_millis(ms) {
            match meters[usize::from(passed % 2 == 1)].wait_at(now) {
                Some(wait) => now += wait,
                None => {
                    meter.passed_at(now, 1000);
                    passed += 1;
                }
            }
        }
        passed
    }

    #[test]
    fn as_much_passes_as_the_limit_says_and_at_first_a_burst() {
        let of_bytes = Meter::new(Limit {
            bytes: Some(100_000),
            frames: None,
        });
        let passed = pass(&of_bytes, 10_000);
        assert!((1000..=1012).contains(&passed), "{passed}");
        let of_frames = Meter::new(Limit {
            bytes: Some(1 << 40),
            frames: Some(50),
        });
        let passed = pass(&of_frames, 10_000);
        assert!((500..=507).contains(&passed), "{passed}");
    }

    #[test]
    fn no_limit_and_absurd_ones_hold_nothing_up_for_ever() {
        assert_eq!(Meter::new(Limit::default()).wait(), None);
        let none = Limit {
            bytes: Some(0),
            frames: Some(0),
        };
        let meter = Meter::new(none);
        let now = Instant::now();
        meter.passed_at(now, 70_000);
        let wait = meter.wait_at(now).expect("it waits");
        assert!(wait > Duration::from_secs(69_000));
    }
}

//! The rate of this machine's time stamp counter, which is the emulated host's, too. That kernel would measure it against timers
//! that come late when the machine is busy, and its clock would then run several times too fast.

use std::arch::x86_64::_rdtsc;
use std::thread;
use std::time::{Duration, Instant};

/// How far apart the two looks at both clocks are.
const APART: Duration = Duration::from_millis(100);

/// How often both clocks are looked at, for a look that nothing comes between.
const LOOKS: usize = 50;

/// The rate, kHz.
pub fn khz() -> u64 {
    let (ticks, clock) = look();
    thread::sleep(APART);
    let (later_ticks, later_clock) = look();
    let elapsed_us = later_clock.duration_since(clock).as_micros();
    let ticks = u128::from(later_ticks.wrapping_sub(ticks));
    u64::try_from(ticks * 1000 / elapsed_us).expect("a rate of a clock")
}

/// Both clocks at one moment.
fn look() -> (u64, Instant) {
    let looks = (0..LOOKS).map(|_| {
        let before = ticks();
        let clock = Instant::now();
        (ticks().wrapping_sub(before), before, clock)
    });
    let best = looks.min_by_key(|(took, ..)| *took);
    let (_, ticks, clock) = best.expect("there are looks");
    (ticks, clock)
}

#[expect(
    unsafe_code,
    reason = "the instruction is safe, its binding is not said to be"
)]
fn ticks() -> u64 {
    // SAFETY: every x86-64 has the instruction, and it touches no memory.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_agrees_with_itself_to_a_thousandth() {
        let (first, second) = (khz(), khz());
        assert!(first > 100_000, "{first} kHz");
        assert!(
            first.abs_diff(second) * 1000 < first,
            "{first} and {second} kHz"
        );
    }
}

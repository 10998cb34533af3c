//! Pods one after the other on the same host: what fails is counted to the end, so that a long run says how often.

use std::time::{Duration, Instant};

use tests::leftovers::Leftovers;
use tests::{finish, rounds, run_sh, tell};

/// One pod from nothing to its end, for an app that says a word and fails.
fn boot(round: usize) -> Result<Duration, String> {
    let begin = Instant::now();
    let finished = finish(&mut run_sh(&["--rm"], &format!("echo {round}; exit 7")));
    let good =
        finished.code == 7 && finished.out() == format!("{round}\n") && finished.err().is_empty();
    let failed = || format!("pod {round}: {finished:?}");
    good.then(|| begin.elapsed()).ok_or_else(failed)
}

#[test]
fn pods_one_after_the_other_all_boot_and_leave_nothing() {
    // The first one imports the image.
    boot(0).expect("a pod");
    let before = Leftovers::now();
    let (mut times, mut failures) = (Vec::new(), Vec::new());
    let rounds = rounds("boots in a row", 5, 100);
    for round in 1..=rounds {
        match boot(round) {
            Ok(time) => times.push(time),
            Err(failure) => failures.push(failure),
        }
    }
    times.sort_unstable();
    tell(&format!(
        "{rounds} boots, {} failed; median {:?}, longest {:?}",
        failures.len(),
        times.get(times.len() / 2),
        times.last()
    ));
    assert!(failures.is_empty(), "{failures:#?}");
    let after = Leftovers::now();
    assert_eq!(after.since(&before), [""; 0], "left by {rounds} pods");
}

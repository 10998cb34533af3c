//! Pods over and over: nothing of them stays on the host, be they stopped in order or killed at any moment. A descriptor that
//! stayed would be one of a process that stayed.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use tests::leftovers::Leftovers;
use tests::random::Random;
use tests::{fairing, finish, rounds, run_sh, tell};

const APP: &str = "exec sleep 1000";

fn collect() {
    finish(fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
}

/// What is there when the image is, and no pod.
fn before() -> Leftovers {
    finish(&mut run_sh(&["--rm"], "true")).expect_code(0);
    collect();
    Leftovers::now()
}

#[test]
fn pods_that_are_started_stopped_and_collected_leave_nothing() {
    let before = before();
    for round in 0..rounds("cycles of start, stop and gc", 5, 200) {
        let started = finish(&mut run_sh(&["-d"], APP)).expect_code(0).out();
        finish(fairing().args(["stop", started.trim()])).expect_code(0);
        collect();
        assert_eq!(Leftovers::now().since(&before), [""; 0], "round {round}");
    }
}

#[test]
fn pods_that_are_killed_at_random_moments_leave_nothing() {
    let begin = Instant::now();
    let started = finish(&mut run_sh(&["-d"], APP)).expect_code(0).out();
    // From the start into the app's life.
    let span = begin.elapsed() + Duration::from_secs(1);
    finish(fairing().args(["stop", started.trim()])).expect_code(0);
    let before = before();
    let mut random = Random::seeded();
    for round in 0..rounds("kills at random moments", 5, 50) {
        let mut run = run_sh(&[], APP);
        run.stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = run.spawn().expect("fairing starts");
        let moment = random.moment(span);
        // The moment is the test's subject: nothing is being waited for.
        thread::sleep(moment);
        run.kill().expect("the process is there");
        run.wait().expect("it can be waited for");
        collect();
        let left = Leftovers::now();
        assert_eq!(
            left.since(&before),
            [""; 0],
            "round {round}, after {moment:?}"
        );
    }
    tell(&format!("within {span:?} from the start"));
}

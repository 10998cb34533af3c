//! `kill -9` at random moments of a pod's life: the next command cleans up, and nothing else is left.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::{fairing, finish, run_sh};

/// How long a start takes at most on an emulated host; kills fall anywhere in it.
const SPAN_MS: u64 = 8000;

#[test]
fn pod_killed_at_any_moment_leaves_nothing_that_gc_does_not_remove() {
    let rounds = if std::env::var("FAIRING_LONG").is_ok_and(|long| long == "1") {
        20
    } else {
        5
    };
    let mut seed = u64::from(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .subsec_nanos(),
    ) | 1;
    println!("seed {seed}");
    // The image is there, so that the kills fall into the pod's own life.
    finish(&mut run_sh(&["--rm"], "true")).expect_code(0);
    for round in 0..rounds {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let delay = Duration::from_millis(seed % (SPAN_MS * (round + 1) / rounds).max(1));
        let mut child = run_sh(&[], "sleep 1000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fairing starts");
        // The moment is the test's subject: nothing is being waited for.
        thread::sleep(delay);
        child.kill().expect("the pod's process can be killed");
        child.wait().expect("it can be waited for");
    }
    let list = finish(fairing().args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    assert!(
        !list.contains("running") && !list.contains("prepar"),
        "{list}"
    );
    finish(fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
    let list = finish(fairing().args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    assert_eq!(list, "");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mount table");
    assert!(
        !mounts.contains(&tests::store().display().to_string()),
        "{mounts}"
    );
    // And the store still works.
    finish(&mut run_sh(&["--rm"], "exit 3")).expect_code(3);
}

//! `fairing enter`: commands run inside the apps of a running pod.

use std::process::Stdio;

use tests::pod::Pod;
use tests::running::Running;
use tests::{fairing, finish, finish_with, wait_until};

/// What the app of most tests does.
const WAITS: &str =
    "trap 'exit 3' TERM; cd /tmp; sleep 1234 & echo ready; while :; do usleep 10000; done";

#[test]
fn command_that_enters_has_the_apps_surroundings_and_its_own_stdio_and_code() {
    let pod = Pod::start(
        &["--name=web", "-e", "WHO=me", "--user=5:6", "--workdir=/var"],
        WAITS,
    );
    let facts = "echo $AC_APP_NAME $WHO; id -u; pwd; ps -o args | grep -c '^sleep 1234$'; cat /proc/self/cgroup; \
        grep CapBnd /proc/self/status | cut -f2; cat; echo bad >&2; exit 5";
    let finished = finish_with(&mut pod.enter(facts), Some(b"given\n".to_vec())).expect_code(5);
    let expected = "web me\n0\n/var\n1\n0::/\n00000000a80425fb\ngiven\n";
    assert_eq!(finished.out(), expected);
    assert_eq!(finished.err(), "bad\n");

    let bytes = vec![b'x'; 5 << 20];
    let finished = finish_with(&mut pod.enter("exec cat"), Some(bytes.clone())).expect_code(0);
    assert!(
        finished.stdout == bytes,
        "{} came back",
        finished.stdout.len()
    );

    let finished = finish(&mut pod.enter_program(&["no-such"])).expect_code(127);
    assert!(finished.err().contains("no-such"), "{}", finished.err());
    finish(&mut pod.enter_program(&["/etc/passwd"])).expect_code(126);
    finish(&mut pod.enter("kill -9 $$")).expect_code(137);

    let mut by_its_other_name = fairing();
    by_its_other_name.args(["exec", pod.uuid(), "true"]);
    finish(&mut by_its_other_name).expect_code(0);

    let mut other = fairing();
    other.args(["enter", "--app=other", pod.uuid(), "true"]);
    let finished = finish(&mut other).expect_code(254);
    assert!(
        finished.err().contains("no app \"other\""),
        "{}",
        finished.err()
    );

    // What entered and left is no end of the pod.
    pod.end().expect_code(3);
}

#[test]
fn command_that_enters_gets_signals_and_ends_with_the_pod() {
    let pod = Pod::start(&[], WAITS);
    let mut signalled = Running::start(
        pod.enter("trap 'exit 9' TERM; echo in; while :; do usleep 10000; done")
            .stdin(Stdio::null()),
    );
    assert_eq!(signalled.line(), "in");
    signalled.signal("TERM");
    signalled.finish().expect_code(9);

    // A command whose caller is gone is told so.
    let mut left = Running::start(
        &mut pod.enter("trap 'touch /tmp/left' HUP; echo in; while :; do usleep 10000; done"),
    );
    assert_eq!(left.line(), "in");
    left.signal("KILL");
    left.finish().expect_code(137);
    wait_until("the command heard that its caller left", || {
        finish(&mut pod.enter("test -e /tmp/left")).code == 0
    });

    let mut last = Running::start(&mut pod.enter("echo in; exec sleep 1000"));
    assert_eq!(last.line(), "in");
    let uuid = pod.uuid().to_owned();
    pod.end().expect_code(3);
    let finished = last.finish();
    assert!(finished.code == 137 || finished.code == 254, "{finished:?}");
    let mut late = fairing();
    late.args(["enter", &uuid, "true"]);
    finish(&mut late).expect_code(254);
}

//! What apps write is kept, and shown by `fairing logs`; pods that run in the background.

use std::process::Command;

use tests::running::Running;
use tests::{Finished, fairing, finish, run_sh, succeed, tell};

fn logs(uuid: &str, options: &[&str]) -> Command {
    let mut logs = fairing();
    logs.arg("logs").args(options).arg(uuid);
    logs
}

/// Starts a pod in the background; gives its UUID.
fn detached(options: &[&str], script: &str) -> String {
    let options: Vec<_> = ["-d"].iter().chain(options).copied().collect();
    let started = finish(&mut run_sh(&options, script)).expect_code(0);
    assert_eq!(started.err(), "");
    started.out().trim().to_owned()
}

fn wait_for_end(uuid: &str) -> Finished {
    let mut status = fairing();
    status.args(["status", "--wait", uuid]);
    finish(&mut status).expect_code(0)
}

#[test]
fn pod_in_the_background_is_followed_stopped_and_remembered() {
    let script = "trap 'echo told; exit 6' TERM; echo one; echo bad >&2; i=0; \
        while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; echo ready; while :; do usleep 10000; done";
    let uuid = detached(&["--name=web"], script);
    let mut follower = Running::start(&mut logs(&uuid, &["-f", "--app=web"]));
    assert_eq!(follower.line(), "one");
    while follower.line() != "ready" {}
    let mut stop = fairing();
    stop.args(["stop", &uuid]);
    finish(&mut stop).expect_code(0);
    assert_eq!(follower.line(), "told");
    let followed = follower.finish().expect_code(0);
    assert_eq!(followed.err(), "bad\n");

    let status = wait_for_end(&uuid).out();
    assert!(status.lines().any(|line| line == "app-web=6"), "{status}");
    let whole = finish(&mut logs(&uuid, &[])).expect_code(0);
    assert_eq!(
        (whole.out().lines().count(), whole.err()),
        (1003, "bad\n".into())
    );
    let tail = finish(&mut logs(&uuid, &["--tail=2", "-t"]))
        .expect_code(0)
        .out();
    let texts: Vec<_> = tail.lines().map(|line| line.split_once(' ')).collect();
    let [Some((time, "ready")), Some((_, "told"))] = texts[..] else {
        panic!("{tail}");
    };
    let later = format!("--since={time}");
    let since = finish(&mut logs(&uuid, &[&later])).expect_code(0).out();
    let lines = since.lines().count();
    assert!(since.ends_with("ready\ntold\n") && lines < 1003, "{lines}");
    tell(&format!("lines at or after {time}: {lines}"));
}

#[test]
fn logs_of_an_app_that_writes_without_end_stay_within_their_bounds() {
    // 8 MB in short lines are 32 MB of records, of which two files of 8 MiB are kept at most.
    let script = "i=0; while [ $i -lt 8 ]; do yes 0123456789abcde | head -c 1000000; i=$((i+1)); done; echo; echo last";
    let ran = finish(&mut run_sh(
        &["--uuid-file-save=/var/tmp/fairing-tests/uuid"],
        script,
    ));
    assert_eq!(ran.expect_code(0).stdout.len(), 8_000_006);
    let uuid = std::fs::read_to_string("/var/tmp/fairing-tests/uuid").expect("a UUID");
    let kept = finish(&mut logs(uuid.trim(), &[])).expect_code(0).stdout;
    assert!(kept.ends_with(b"\nlast\n"));
    assert!((1 << 20..5 << 20).contains(&kept.len()), "{}", kept.len());
}

#[test]
fn pod_in_the_background_whose_app_cannot_start_says_why() {
    let mut run = fairing();
    run.args(["run", "-d"])
        .arg(tests::test_image("busybox"))
        .args(["--", "/no/such"]);
    let finished = finish(&mut run).expect_code(127);
    assert!(finished.err().contains("/no/such"), "{}", finished.err());
    assert_eq!(finished.out(), "");
}

#[test]
fn what_happens_to_a_pod_is_told_as_it_happens_and_after_it_is_gone() {
    let events = |options: &[&str]| {
        let mut events = fairing();
        events.arg("events").args(options);
        events
    };
    let mut stream = Running::start(&mut events(&["--filter=event=died", "--filter=event=exit"]));
    let uuid = detached(&["--name=web"], "exit 7");
    let told = |line: &str| line.split_once(' ').expect("a time").1.to_owned();
    assert_eq!(
        told(&stream.line()),
        format!("exit {uuid} app=web exit_code=7")
    );
    assert_eq!(told(&stream.line()), format!("died {uuid} exit_code=7"));
    stream.signal("TERM");
    stream.finish().expect_code(143);

    succeed(fairing().args(["rm", &uuid]));
    let pod = format!("--filter=pod={}", &uuid[..8]);
    let past = succeed(&mut events(&[&pod, "--stream=false", "--format=json"]));
    let names: Vec<_> = past
        .out()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|event| event["event"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["create", "start", "exit", "died", "remove"]);
    let later = succeed(&mut events(&[&pod, "--stream=false", "--until=1h"]));
    assert_eq!(later.out(), "");
}

//! How pods end: exit codes, signals from within and from without.

use std::fs;
use std::process::Command;

use tests::running::{Running, child_of, signal};
use tests::{fairing, finish, rounds, run_sh, store, wait_until};

/// What `fairing list` calls the pod that is there.
#[track_caller]
fn only_pod() -> String {
    let list = finish(fairing().args(["list", "--no-legend"])).expect_code(0);
    let out = list.out();
    out.split_whitespace().next().expect("a pod").to_owned()
}

#[test]
fn app_that_ends_itself_gives_its_code_or_128_and_the_signal() {
    let ends = [
        ("exit 1", 1),
        ("kill -SEGV $$", 139),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -ABRT $$", 134),
        ("kill -USR1 $$", 138),
        ("kill -PIPE $$", 141),
        ("kill -64 $$", 192),
    ];
    for (script, code) in &ends[..rounds("ends of an app", 2, ends.len())] {
        finish(&mut run_sh(&["--name=ends"], script)).expect_code(*code);
        let uuid = &only_pod();
        let status = finish(fairing().args(["status", uuid]))
            .expect_code(0)
            .out();
        assert!(status.contains(&format!("app-ends={code}\n")), "{status}");
        finish(fairing().args(["rm", uuid])).expect_code(0);
    }
}

#[test]
fn app_catches_each_signal_and_a_second_interrupt_ends_the_pod() {
    let script = "for signal in TERM HUP QUIT USR1 USR2 INT; do trap \"echo $signal\" $signal; done; \
                  sleep 1000 & echo ready; while :; do wait; done";
    let mut pod = Running::start(&mut run_sh(&["--rm"], script));
    assert_eq!(pod.line(), "ready");
    for name in ["TERM", "HUP", "QUIT", "USR1", "USR2", "INT"] {
        pod.signal(name);
        assert_eq!(pod.line(), name);
    }
    pod.signal("INT");
    pod.finish().expect_code(130);
    let list = finish(fairing().args(["list", "--no-legend"])).expect_code(0);
    assert_eq!(list.out(), "", "--rm left the pod");
}

#[test]
fn app_without_a_trap_is_killed_by_a_signal_from_outside() {
    let mut pod = Running::start(&mut run_sh(&["--rm"], "echo ready; exec sleep 1000"));
    assert_eq!(pod.line(), "ready");
    signal(child_of(pod.pid()), "TERM");
    pod.finish().expect_code(143);
}

#[test]
fn pod_whose_time_is_up_says_so_to_who_waits_for_it() {
    let run = &mut run_sh(&["--timeout=1s"], "exec sleep 1000");
    finish(run).expect_code(124);
    let uuid = &only_pod();
    let waited = finish(fairing().args(["wait", uuid])).expect_code(0);
    assert_eq!(waited.out(), "124\n");
    finish(fairing().args(["rm", uuid])).expect_code(0);
}

#[test]
fn process_that_has_the_pid_of_a_dead_pod_by_now_is_left_alone() {
    let started = finish(&mut run_sh(&["-d"], "exec sleep 1000")).expect_code(0);
    let uuid = started.out().trim().to_owned();
    let of_pod = |words: &[&str]| finish(fairing().args(words).arg(&uuid));
    let pid = of_pod(&["status", "--wait-ready"]).expect_code(0);
    signal(pid.value("pid").parse().expect("a pid"), "KILL");
    wait_until("the pod is dead", || {
        of_pod(&["status"]).value("state") != "running"
    });
    let mut other = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let file = store().join("pods/run").join(&uuid).join("pid");
    fs::write(&file, format!("{}\n", other.id())).expect("the pod has a pid");

    assert_eq!(of_pod(&["status"]).value("state"), "exited");
    let entered = finish(fairing().args(["enter", &uuid, "/bin/sh"])).expect_code(254);
    assert!(entered.err().contains("not running"), "{}", entered.err());
    for deed in [&["kill"][..], &["stop"], &["stop", "--force"], &["top"]] {
        let done = of_pod(deed);
        assert!(done.err().contains(&uuid), "{deed:?}: {}", done.err());
    }
    of_pod(&["rm"]).expect_code(0);
    finish(fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
    assert_eq!(other.try_wait().expect("a child"), None);
    other.kill().and_then(|()| other.wait()).expect("a child");
    assert!(!file.exists());
}

//! Several commands on the same pods at once, and signals that a caller had ignored.

use std::fs::{self, File};
use std::process::{Child, Command, Output, Stdio};

use crate::recorder::{Host, LIVING, RECORD, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn spawn(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fairing starts")
}

fn end(child: Child) -> Output {
    child.wait_with_output().expect("its end")
}

/// Whether it waits to be reaped.
fn has_ended(child: &Child) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") Z "))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, signal).expect("a signal");
}

/// The one pod of the host, once it runs.
fn running(host: &Host) -> String {
    until("the pod is ready", || {
        host.pods("run").iter().any(|uuid| {
            host.output(&["status", "--wait-ready=10s", uuid])
                .status
                .success()
        })
    });
    host.pods("run").remove(0)
}

#[test]
fn prepared_pod_that_two_start_at_once_runs_once_and_the_other_fails_at_once() {
    let host = Host::new(LIVING);
    let prepared = host.pod("prepare", &[]).output().expect("fairing starts");
    let uuid = text(&prepared.stdout).trim().to_owned();
    let path = fs::canonicalize(host.path("data/pods/prepared").join(&uuid)).expect("the pod");
    // While the pod is looked at, both stand before its lock.
    let look = File::open(&path).expect("the pod");
    look.lock_shared().expect("a shared lock");
    let children = [0, 1].map(|_| spawn(&mut host.command(&["run-prepared", &uuid])));
    for child in &children {
        until("it has opened the pod", || has_open(child, &path));
    }
    drop(look);
    running(&host);
    until("one of them has failed", || children.iter().any(has_ended));
    let [first, second] = children;
    let (loser, winner) = if has_ended(&first) {
        (first, second)
    } else {
        (second, first)
    };
    let lost = end(loser);
    assert_eq!(lost.status.code(), Some(254));
    assert!(
        text(&lost.stderr).contains("another command"),
        "{}",
        text(&lost.stderr)
    );
    send(&winner, Signal::SIGTERM);
    assert_eq!(end(winner).status.code(), Some(7));
}

#[test]
fn pod_with_rm_that_another_command_marks_is_removed_all_the_same() {
    // As a gc may that keeps the pod for its grace period: it has the lock, moves the pod, and lets go of it later.
    let host = Host::new(
        "#!/bin/sh\nmv \"$(pwd)\" ../../exited-garbage/\n(read -r line <\"$FIFO\") &\nexit 7\n",
    );
    let fifo = host.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let child = spawn(host.pod("run", &["--rm", "--quiet"]).env("FIFO", &fifo));
    until("the parent wants the pod, or has given up", || {
        let marked = host.pods("exited-garbage");
        let wants = |uuid| has_open(&child, &host.path("data/pods/exited-garbage").join(uuid));
        has_ended(&child) || marked.first().is_some_and(wants)
    });
    fs::write(&fifo, "\n").expect("the lock is let go of");
    let output = end(child);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stderr), "");
    assert!(host.pods("run").is_empty() && host.pods("exited-garbage").is_empty());
}

/// Whether the process has the file open that is now called `path`.
fn has_open(child: &Child, path: &std::path::Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_default();
    fs::read_dir(format!("/proc/{}/fd", child.id())).is_ok_and(|fds| {
        fds.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|open| open == path))
    })
}

#[test]
fn commands_that_remove_the_same_pods_do_not_complain() {
    let host = Host::new(RECORD);
    host.entrypoint("gc", "#!/bin/sh\n[ -e pod ]\n");
    host.manifest(&["run", "gc"]);
    for _ in 0..24 {
        let status = host.pod("run", &[]).status().expect("fairing starts");
        assert_eq!(status.code(), Some(42));
    }
    let children: Vec<_> = (0..8)
        .map(|index| {
            let words: &[&str] = if index % 2 == 0 {
                &["gc", "--grace-period=0"]
            } else {
                &["list"]
            };
            spawn(&mut host.command(words))
        })
        .collect();
    for child in children {
        let output = end(child);
        let told = text(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(
            told.lines()
                .all(|line| line.starts_with("fairing: removing pod ")),
            "{told}"
        );
    }
    host.stdout(&["gc", "--grace-period=0"]);
    assert!(host.pods("run").is_empty() && host.pods("exited-garbage").is_empty());
}

#[test]
fn signal_that_the_caller_ignored_does_not_reach_the_pod() {
    // A shell cannot trap what it was started to ignore, so it is given its default back, as stage 1s may do.
    let host = Host::new(&format!(
        "#!/bin/sh\n[ \"$REVIVED\" ] || REVIVED=1 exec env --default-signal=INT,QUIT,HUP \"$0\"\n\
         trap 'exit 9' INT QUIT HUP\n{LIVING}"
    ));
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' INT QUIT HUP; exec \"$@\"", "sh"]);
    let fairing = host.pod("run", &["--rm"]);
    ignoring
        .arg(fairing.get_program())
        .args(fairing.get_args())
        .stdin(Stdio::null());
    let child = spawn(&mut ignoring);
    running(&host);
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        send(&child, signal);
    }
    send(&child, Signal::SIGTERM);
    assert_eq!(end(child).status.code(), Some(7));
}

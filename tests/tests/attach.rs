//! Visitors at the streams of an app that runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::running::Running;
use tests::sandbox::Sandbox;
use tests::{fairing, finish, run_sh, temporary, wait_until};

fn attach(pod: &str, options: &[&str]) -> Command {
    let mut command = fairing();
    command.arg("attach").args(options).arg(pod);
    command.stdin(Stdio::null());
    command
}

/// Says each line that it reads on both of its outputs, and ends with code 6.
const ECHO: &str =
    "while read line; do echo out $line; echo err $line >&2; [ $line = end ] && exit 6; done";

#[test]
fn several_visitors_see_what_an_app_writes_and_one_after_the_other_writes_to_it() {
    let pod = Sandbox::start(&[]);
    pod.add("echo", &["-i"], ECHO).expect_code(0);
    finish(&mut attach(pod.uuid(), &[])).expect_code(254);
    pod.does("start", "echo");
    let list = finish(&mut attach(pod.uuid(), &["--mode=list"])).expect_code(0);
    assert_eq!(list.out(), "stdin\nstdout\nstderr\n");
    let mut sees = Running::with_stdin(&mut attach(pod.uuid(), &["--mode=stdin,stdout"]));
    sees.write("zero\n");
    assert_eq!(sees.line(), "out zero");
    // The end of its input is not the app's.
    sees.close_stdin();
    let mut writes = Running::with_stdin(&mut attach(pod.uuid(), &["--app=echo"]));
    writes.write("one\n");
    assert_eq!(
        (writes.line(), writes.error_line()),
        ("out one".into(), "err one".into())
    );
    assert_eq!(sees.line(), "out one");
    writes.signal("INT");
    writes.finish().expect_code(130);
    let mut other = Running::with_stdin(&mut attach(pod.uuid(), &["--mode=stdin,stderr"]));
    other.write("two\n");
    assert_eq!(other.error_line(), "err two");
    assert_eq!(sees.line(), "out two");
    other.write("end\n");
    let other = other.finish().expect_code(6);
    assert_eq!(
        (other.out().as_str(), other.err().as_str()),
        ("", "err end\n")
    );
    assert_eq!(sees.finish().expect_code(6).out(), "out end\n");
    assert_eq!(pod.logs("echo"), "out zero\nout one\nout two\nout end\n");
    // An app without input has none to attach to, and a new life new streams.
    pod.add("mute", &[], "while :; do usleep 10000; done")
        .expect_code(0);
    pod.does("start", "mute");
    let refused = finish(&mut attach(pod.uuid(), &["--app=mute", "--mode=stdin"])).expect_code(254);
    assert!(refused.err().contains("no stdin"), "{}", refused.err());
    pod.does("start", "echo");
    let mut again = Running::with_stdin(&mut attach(pod.uuid(), &["--app=echo"]));
    again.write("end\n");
    assert_eq!(again.finish().expect_code(6).out(), "out end\n");
    pod.end();
}

/// Waits until `app`, which writes 200,000 lines and then makes `done`, is held up by a visitor who does not read.
fn wait_until_held_up(pod: &Sandbox, done: &Path) {
    let (mut before, lines) = (0, || pod.logs("writes").lines().count());
    wait_until("what is written stands still", || {
        let now = lines();
        std::mem::replace(&mut before, now) == now && now > 1000
    });
    assert!(!done.exists(), "nothing holds it up");
}

#[test]
fn visitor_who_does_not_read_gets_every_byte_in_the_end_or_is_turned_out_when_the_app_is_stopped() {
    let folder = temporary("fairing-attach-");
    let (share, done) = (
        format!("-v={}:/s", folder.path().display()),
        folder.path().join("done"),
    );
    let pod = Sandbox::start(&["--stop-timeout=1s"]);
    let script = "read word; seq 1 200000; touch /s/done; read word";
    pod.add("writes", &["-i", &share], script).expect_code(0);
    pod.does("start", "writes");
    let mut visitor = Running::with_stdin(&mut attach(pod.uuid(), &[]));
    visitor.write("go\n");
    wait_until_held_up(&pod, &done);
    visitor.write("end\n");
    let out = visitor.finish().expect_code(0).out();
    let numbers: Vec<_> = (1..=200_000).map(|number| number.to_string()).collect();
    let lines = out.lines().count();
    assert!(
        out.lines().eq(numbers.iter().map(String::as_str)),
        "{lines} lines"
    );
    // In its next life nobody reads at all.
    fs::remove_file(&done).expect("it was made");
    pod.does("rm", "writes");
    pod.add("writes", &["-i", &share], script).expect_code(0);
    pod.does("start", "writes");
    let mut visitor = Running::with_stdin(&mut attach(pod.uuid(), &[]));
    visitor.write("go\n");
    wait_until_held_up(&pod, &done);
    pod.does("stop", "writes");
    assert_eq!(pod.state("writes"), "exited");
    visitor.finish();
    pod.end();
}

#[test]
fn visitors_who_have_left_leave_nothing_in_the_pods_process() {
    let pod = Sandbox::start(&[]);
    pod.add("mute", &["-i"], "while :; do usleep 10000; done")
        .expect_code(0);
    pod.does("start", "mute");
    let pid = fs::read_to_string(pod.directory().join("pid")).expect("the pid");
    let open = || {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", pid.trim()));
        descriptors.expect("descriptors").count()
    };
    let visit = || {
        let before = open();
        let visitor = Running::with_stdin(&mut attach(pod.uuid(), &[]));
        wait_until("it is attached", || open() > before);
        visitor.signal("TERM");
        visitor.finish().expect_code(143);
    };
    visit();
    let before = open();
    for _ in 0..5 {
        visit();
    }
    // Those of the last may still be there.
    assert!(
        open() <= before + 3,
        "{before} descriptors became {}",
        open()
    );
    pod.end();
}

#[test]
fn visitor_of_an_app_that_its_pod_began_with_sees_what_it_writes() {
    let writes = "while :; do echo out; echo err >&2; usleep 100000; done";
    let started = finish(&mut run_sh(&["-d"], writes)).expect_code(0).out();
    let uuid = started.trim();
    let list = finish(&mut attach(uuid, &["--mode=list"])).expect_code(0);
    assert_eq!(list.out(), "stdout\nstderr\n");
    let mut visitor = Running::start(&mut attach(uuid, &[]));
    assert_eq!(visitor.line(), "out");
    assert_eq!(visitor.error_line(), "err");
    for command in ["stop", "rm"] {
        finish(fairing().args([command, uuid])).expect_code(0);
    }
    // Its app was ended by a signal.
    visitor.finish().expect_code(143);
}

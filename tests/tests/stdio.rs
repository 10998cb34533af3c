//! stdin, stdout and stderr at their edges: closed, gone, slow.

use std::fs;
use std::process::{Command, Stdio};

use tests::running::Running;
use tests::{finish, finish_with, run_sh, tell};

/// Bytes that an app writes against a reader that does not read.
const FLOOD_BYTES: usize = 64 << 20;

#[test]
fn stdin_without_i_is_dev_null_and_outputs_open_by_name() {
    let script = "readlink /proc/self/fd/0; wc -c; echo out >/dev/stdout; echo err >/dev/stderr; \
                  echo out >/proc/self/fd/1";
    let finished =
        finish_with(&mut run_sh(&[], script), Some(b"not for the app".to_vec())).expect_code(0);
    assert_eq!(finished.out(), "/dev/null\n0\nout\nout\n");
    assert_eq!(finished.err(), "err\n");
}

/// `command` under a shell that first redirects as `redirection` says.
fn redirected(command: &Command, redirection: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")])
        .arg(command.get_program());
    shell.args(command.get_args()).stdin(Stdio::null());
    shell
}

#[test]
fn closed_stdio_of_fairing_is_as_if_it_were_dev_null() {
    let app = run_sh(&["-i"], "wc -c >&2; echo lost; echo seen >&2; exit 3");
    let finished = finish(&mut redirected(&app, "<&- >&-")).expect_code(3);
    assert_eq!(
        (finished.out(), finished.err()),
        (String::new(), "0\nseen\n".to_owned())
    );
    let app = run_sh(&["-i"], "cat; echo lost >&2; echo seen; exit 4");
    let finished = finish(&mut redirected(&app, "<&- 2>&-")).expect_code(4);
    assert_eq!(
        (finished.out(), finished.err()),
        ("seen\n".to_owned(), String::new())
    );
}

#[test]
fn reader_that_goes_away_ends_an_app_that_goes_on_writing() {
    let mut pod = Running::start(&mut run_sh(&[], "exec yes"));
    assert_eq!(pod.line(), "y");
    pod.close_stdout();
    let finished = pod.finish().expect_code(141);
    assert_eq!(finished.err(), "");
}

/// Resident memory of a process, KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.expect("VmRSS in KiB")
}

#[test]
fn app_whose_output_nobody_reads_waits_and_loses_nothing_at_its_exit() {
    let mib = FLOOD_BYTES >> 20;
    let script = format!(
        "i=0; (while [ $i -lt {mib} ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >&2; done) & \
         echo writing >&2; sleep 4; echo waited >&2; wait; exit 6"
    );
    let mut pod = Running::start(&mut run_sh(&[], &script));
    assert_eq!(pod.error_line(), "writing");
    let before = resident_kib(pod.pid());
    let accepted =
        std::iter::from_fn(|| Some(pod.error_line()).filter(|line| line != "waited")).count();
    let grown = resident_kib(pod.pid()).saturating_sub(before);
    tell(&format!(
        "{accepted} MiB were taken from the app, the process grew by {grown} KiB"
    ));
    assert!(accepted <= 4, "{accepted} MiB were taken that nobody read");
    assert!(grown < 16 << 10, "the process grew by {grown} KiB");
    let finished = pod.finish().expect_code(6);
    assert_eq!(finished.stdout.len(), FLOOD_BYTES);
    assert!(
        finished.err().ends_with(&format!("{mib}\n")),
        "{}",
        finished.err()
    );
}

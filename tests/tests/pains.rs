//! What users of rkt's own kvm flavor suffered from, and do not here: those of its issues that no other test is about.

use std::fs;
use std::process::Command;

use tests::running::Running;
use tests::{fairing, finish, proved, run_sh, temporary, test_image};

/// rkt#1375, rkt#2650: under systemd units a pod hung; rkt#1393: without HOME there was none.
#[test]
fn pod_needs_no_terminal_no_home_and_no_environment_at_all() {
    let run = run_sh(&["--rm"], "echo $HOME; tty; [ -t 0 ] || exit 3");
    let mut alone = Command::new("setsid");
    alone
        .arg("--wait")
        .arg(run.get_program())
        .args(run.get_args());
    let finished = finish(alone.env_clear()).expect_code(3);
    assert_eq!(finished.out(), "/root\nnot a tty\n", "{}", finished.err());
}

/// rkt#3644: parameters of the guest's kernel, as an option that says what it costs.
#[test]
fn kernel_parameters_are_for_debugging_and_said_to_cost() {
    let run = |options: &[&str]| {
        let mut command = fairing();
        command.args(options).args(["run", "--rm"]);
        command
            .arg(test_image("busybox"))
            .args(["--exec=/bin/sh", "--", "-c"]);
        command.arg(proved(
            "tr ' ' '\\n' </proc/cmdline | grep -c fairing.asked",
        ));
        finish(command.env("RKT_HYPERVISOR_EXTRA_KERNEL_PARAMS", "fairing.asked=1"))
    };
    let given = run(&["--debug"]).expect_code(0);
    assert_eq!(given.out(), "1\n");
    assert!(given.err().contains("yours to judge"), "{}", given.err());
    let ignored = run(&[]).expect_code(1);
    assert_eq!(ignored.out(), "0\n");
    assert!(
        ignored.err().contains("ignored without --debug"),
        "{}",
        ignored.err()
    );
}

/// rkt#2389, rkt#2396, kubernetes#13455: status showed -1, or another process.
#[test]
fn pid_of_a_pod_is_its_process_from_the_first_moment_it_is_shown() {
    let folder = temporary("fairing-pid-");
    let file = folder.path().join("uuid");
    let save = format!("--uuid-file-save={}", file.display());
    let script = "echo up; read word";
    let mut pod = Running::with_stdin(&mut run_sh(&["-i", "--rm=false", &save], script));
    let mut shown = None;
    tests::wait_until("its pid is shown", || {
        let uuid = fs::read_to_string(&file).unwrap_or_default();
        if uuid.trim().is_empty() {
            return false;
        }
        let status = finish(fairing().args(["status", uuid.trim()]));
        let out = status.out();
        shown = out
            .lines()
            .find_map(|line| Some(line.strip_prefix("pid=")?.to_owned()));
        shown.is_some()
    });
    assert_eq!(shown, Some(pod.pid().to_string()));
    assert_eq!(pod.line(), "up");
    pod.write("end\n");
    pod.finish().expect_code(0);
}

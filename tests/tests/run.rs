//! `fairing run` on a real image: output, exit codes, stdio, environment, users, signals.

use tests::{fairing, finish, finish_with, run_sh, test_image};

#[test]
fn run_of_a_command_shows_its_output_and_exit_code() {
    let finished = finish(&mut run_sh(&[], "echo out; echo err >&2; exit 42")).expect_code(42);
    assert_eq!(finished.out(), "out\n");
    assert_eq!(finished.err(), "err\n");
}

#[test]
fn run_of_a_command_that_is_missing_gives_127() {
    let finished = finish(
        fairing()
            .arg("run")
            .arg(test_image("busybox"))
            .args(["--", "/no/such"]),
    )
    .expect_code(127);
    assert!(finished.err().contains("/no/such"), "{}", finished.err());
}

#[test]
fn run_of_a_file_that_is_no_program_gives_126() {
    finish(
        fairing()
            .arg("run")
            .arg(test_image("busybox"))
            .args(["--", "/etc/passwd"]),
    )
    .expect_code(126);
}

#[test]
fn run_of_a_killed_command_gives_128_and_the_signal() {
    finish(&mut run_sh(&[], "kill -9 $$")).expect_code(137);
}

#[test]
fn stdin_of_64_mib_comes_back_unchanged() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut input = Vec::with_capacity(64 << 20);
    while input.len() < 64 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        input.extend_from_slice(&state.to_le_bytes());
    }
    let finished =
        finish_with(&mut run_sh(&["-i"], "exec cat"), Some(input.clone())).expect_code(0);
    assert!(
        finished.stdout == input,
        "{} of {} bytes came back, or not the same",
        finished.stdout.len(),
        input.len()
    );
}

#[test]
fn lines_on_both_outputs_at_once_all_arrive() {
    let script = "(i=0; while [ $i -lt 50000 ]; do echo o$i; i=$((i+1)); done) & \
                  i=0; while [ $i -lt 50000 ]; do echo e$i >&2; i=$((i+1)); done; wait";
    let finished = finish(&mut run_sh(&[], script)).expect_code(0);
    assert!(
        finished
            .out()
            .lines()
            .enumerate()
            .all(|(index, line)| line == format!("o{index}"))
    );
    assert!(
        finished
            .err()
            .lines()
            .enumerate()
            .all(|(index, line)| line == format!("e{index}"))
    );
    assert_eq!(
        (
            finished.out().lines().count(),
            finished.err().lines().count()
        ),
        (50_000, 50_000)
    );
}

#[test]
fn app_sees_its_environment_user_host_name_and_stdio() {
    let script = "echo $A $HOME $AC_APP_NAME; id -u; id -g; hostname; pwd; echo x >/dev/stdout; cat; mount | grep -c '^overlay on / '; ls /sys/class/net";
    let options = [
        "--name=web",
        "-e",
        "A=b c",
        "--user=worker",
        "--group=worker",
        "--hostname=box",
        "--workdir=/tmp/new",
        "--net=none",
    ];
    let finished = finish(&mut run_sh(&options, script)).expect_code(0);
    assert_eq!(
        finished.out(),
        "b c /root web\n1000\n1000\nbox\n/tmp/new\nx\n1\nlo\n"
    );
}

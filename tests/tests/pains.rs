//! What users of rkt's own kvm flavor suffered from, and do not here. Those of its issues that no other test is about have theirs
//! in this file; the others (numbers of the contract page, section 5; 2 to 4 come with networks, 10, 11, 13, 16 and 20 are no
//! matter of tests):
//!
//! | | pain | test |
//! |---|---|---|
//! | 1 | a pod's exit code was always 0 (rkt#2777) | `tests/run`: `run_of_a_command_shows_its_output_and_exit_code`; `tests/ends`: `app_that_ends_itself_gives_its_code_or_128_and_the_signal` |
//! | 5 | it needed a terminal and hung under systemd (#1375, #2650) | `pod_needs_no_terminal_no_home_and_no_environment_at_all` |
//! | 6 | files shared by 9p: owners, the sticky bit, unlinked files (#2576, #1917) | `tests/volumes`: `host_folder_has_in_the_pod_what_programs_do_to_files` |
//! | 7 | volumes: single files, links, read-only ones that were written (#2328, #3304), docker's (#2558), propagation (#3272) | `tests/volumes`: `single_file_and_linked_source_are_shared`, `read_only_folder_is_the_hosts_to_protect`, `what_is_mounted_below_comes_along_unless_told_otherwise`; `cargo test -p stage1`: `mount_point_that_nobody_serves_is_empty_or_for_docker_the_images_own` |
//! | 8 | out of memory in a small machine (#3382), more CPUs than the host (#2321), limits of the pod ignored | `memory_of_a_pod_that_asks_for_none_is_enough_for_ordinary_work`; `tests/sizes`: `pod_has_the_cpus_asked_for_and_works_on_each`; `tests/apps`: `limits_of_the_pod_bound_all_of_its_apps` |
//! | 9 | entering by ssh: a port, keys and a network (#1525) | `pod_is_entered_though_nothing_listens_in_it_and_nothing_runs_but_its_app`; `tests/enter` |
//! | 12 | another hypervisor gave a bare ioctl error (#3558) | `cargo test -p vmm`: `hypervisor_that_holds_the_cpu_is_spoken_of` |
//! | 14 | parameters of the kernel (#3644) | `kernel_parameters_are_for_debugging_and_said_to_cost` |
//! | 15 | stopping without ssh (#2438), a pod that did not end (#2191), post-stop handlers that raced with the end (#2870) | `tests/apps`: `pod_that_is_stopped_asks_each_app_by_its_signal_…`, `handlers_run_before_and_after_the_app_…`; `tests/cycles` |
//! | 17 | what a pod costs was never measured: systemd and journald in each (#1788) | `pod_is_entered_though_…`; `scripts/bench` |
//! | 18 | a pid of -1, or another's (#2389, #2396) | `pid_of_a_pod_is_its_process_from_the_first_moment_it_is_shown` |
//! | 19 | without HOME there was no pod (#1393); what was left behind after errors (#1921) | `pod_needs_no_terminal_no_home_…`; `tests/cycles`: `pods_that_are_killed_at_random_moments_leave_nothing` |

use std::fs;
use std::process::Command;

use tests::pod::Pod;
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

/// rkt#1525: one entered by ssh, through a port, with keys; rkt#1788: each pod had a service manager and a journal of its own.
#[test]
fn pod_is_entered_though_nothing_listens_in_it_and_nothing_runs_but_its_app() {
    let pod = Pod::start(&["--net=none"], "echo ready; exec sleep 1000");
    // Of sockets of Unix those that listen or have a name: what an app logs by syslog arrives at one.
    let script = "for kind in tcp tcp6 udp udp6 raw; do tail -n +2 /proc/net/$kind; done; \
                  awk 'NR > 1 && ($4 != 0 || $8) { print $4, $5, $8 }' /proc/net/unix; \
                  set -- /proc/[0-9]*; for process; do tr '\\0' ' ' <$process/cmdline; echo; done | sort";
    let entered = finish(&mut pod.enter(script)).expect_code(0);
    let out = entered.out();
    let lines = out.lines().map(str::trim);
    // But for the shell that looks.
    let others: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("/bin/sh"))
        .collect();
    let expected = ["00000000 0002 /dev/log", "/init", "sleep 1000"];
    assert_eq!(others, expected, "{out}\n{}", entered.err());
    pod.end();
}

/// rkt#3382: machines of a few MiB killed what was to run in them.
#[test]
fn memory_of_a_pod_that_asks_for_none_is_enough_for_ordinary_work() {
    let script = "dd if=/dev/zero of=/dev/shm/work bs=1M count=200 2>/dev/null && stat -c %s /dev/shm/work && \
                  dd if=/dev/zero of=/dev/null bs=128M count=1 2>&1 | tail -1 | cut -d' ' -f1";
    let finished = finish(&mut run_sh(&["--rm"], script)).expect_code(0);
    assert_eq!(finished.out(), "209715200\n1+0\n", "{}", finished.err());
}

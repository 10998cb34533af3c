//! A pod's CPUs, memory and writable layer: what was asked for is what the app has.

use std::fs;
use std::process::Command;

use tests::{fairing, finish, rounds, run_sh, store};

/// Prints the number of CPUs twice, then on each CPU its number, all at work at once.
const CPUS: &str = "nproc; grep -c ^processor /proc/cpuinfo; cpu=0; \
    while [ $cpu -lt $(nproc) ]; do \
    taskset $(printf %x $((1 << cpu))) sh -c 'n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); done; cut -d\" \" -f39 /proc/self/stat' & \
    cpu=$((cpu + 1)); done; wait";

#[test]
fn pod_has_the_cpus_asked_for_and_works_on_each() {
    let sizes = [("--cpus=1", 1), ("--cpus=2500m", 3), ("--cpus=32", 32)];
    for (option, cpus) in &sizes[..rounds("numbers of CPUs", 2, 3)] {
        // More memory than an emulated host has, which is for its owner to decide.
        let finished = finish(&mut run_sh(&["--rm", "--memory=6Gi", option], CPUS)).expect_code(0);
        let out = finished.out();
        let mut numbers = out
            .lines()
            .map(|line| line.parse::<u32>().expect("a number"));
        assert_eq!((numbers.next(), numbers.next()), (Some(*cpus), Some(*cpus)));
        let mut worked: Vec<_> = numbers.collect();
        worked.sort_unstable();
        assert_eq!(worked, (0..*cpus).collect::<Vec<_>>(), "{option}");
        warned(&finished.err(), "CPUs asked for", host_cpus() < *cpus);
        warned(
            &finished.err(),
            "MiB, the host has",
            host_memory_mib() < 6 << 10,
        );
    }
}

#[test]
fn limit_of_cpu_time_is_in_force_and_not_the_apps_to_lift() {
    let script = "cat /sys/fs/cgroup/cpu.max; echo max 2>/dev/null >/sys/fs/cgroup/cpu.max || echo refused; \
                  until grep -q 'nr_throttled [1-9]' /sys/fs/cgroup/cpu.stat; do \
                      n=0; while [ $n -lt 10000 ]; do n=$((n + 1)); done; \
                  done; echo throttled";
    let finished = finish(&mut run_sh(&["--rm", "--cpus=500m"], script)).expect_code(0);
    assert_eq!(finished.out(), "50000 100000\nrefused\nthrottled\n");
}

fn warned(stderr: &str, warning: &str, expected: bool) {
    assert_eq!(
        stderr.contains(warning),
        expected,
        "{warning:?} in {stderr:?}"
    );
}

fn host_cpus() -> u32 {
    let cpus = std::thread::available_parallelism().expect("the number of CPUs");
    u32::try_from(cpus.get()).expect("few CPUs")
}

fn host_memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let kib = text
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("MemTotal in KiB") >> 10
}

#[test]
fn writable_layer_in_memory_is_bounded_by_it_and_leaves_no_file_on_the_host() {
    let script = "mount | grep -c ' on / type overlay (rw'; echo kept >/etc/new; cat /etc/new; \
                  dd if=/dev/zero of=/big bs=1M count=4096 2>&1 | grep -o 'No space left'; \
                  [ $(stat -c %s /big) -gt 16000000 ] && rm /big && echo alive >/again && cat /again; \
                  cat /sys/block/*/size | sort -n | tail -1";
    let finished = finish(&mut run_sh(&["--tmpfs-root", "--memory=128Mi"], script)).expect_code(0);
    let out = finished.out();
    assert!(
        out.starts_with("1\nkept\nNo space left\nalive\n"),
        "{out}\n{}",
        finished.err()
    );
    let find = ["-path", "*/pods/run/*", "-size", "+32M"];
    let files = finish(Command::new("find").arg(store()).args(find)).expect_code(0);
    assert_eq!(files.out(), "", "a scratch disk on the host");
    finish(fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
    // The next pod of the image knows nothing of it.
    let finished =
        finish(&mut run_sh(&["--tmpfs-root", "--rm"], "ls /etc/new /again")).expect_code(1);
    assert_eq!(finished.out(), "");
}

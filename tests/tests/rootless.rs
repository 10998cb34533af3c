//! A pod of a user without root, who is a member of the group that may use /dev/kvm.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{checkout, finish, test_image, wait};

/// A user whom nothing on the host belongs to.
const USER: &str = "54321";

/// `program` as that user, in the group of /dev/kvm.
fn as_user(program: &Path) -> Command {
    let group = fs::metadata("/dev/kvm")
        .expect("the host has KVM")
        .gid()
        .to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--groups", &group, "--"])
        .arg(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn pod_of_an_ordinary_user_runs_jailed_under_his_uid() {
    // A place that he can reach, wherever the checkout is.
    let home = tempfile::Builder::new()
        .prefix("fairing-rootless-")
        .tempdir_in("/var/tmp")
        .expect("a folder");
    let copy = |from: &Path| {
        let copied = Command::new("cp")
            .arg("-r")
            .arg(from)
            .arg(home.path())
            .status()
            .expect("cp runs");
        assert!(copied.success(), "copy {}", from.display());
    };
    [
        checkout().join("target/fairing"),
        checkout().join("target/stage1-kvm"),
        test_image("busybox"),
    ]
    .iter()
    .for_each(|path| copy(path));
    let owner = format!("{USER}:{USER}");
    finish(Command::new("chown").args(["-R", &owner]).arg(home.path())).expect_code(0);

    let mut command = as_user(&home.path().join("fairing"));
    command.env("HOME", home.path());
    command
        .arg("--dir")
        .arg(home.path().join("store"))
        .args(["run", "-i"]);
    command
        .arg("--stage1")
        .arg(home.path().join("stage1-kvm"))
        .arg(home.path().join("busybox"));
    let script = "grep -c virtio_mmio.device=4K@0xd0000000 /proc/cmdline; id -u; read line; exit 9";
    let mut child = command
        .args(["--", "/bin/sh", "-c", script])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = [0; 4];
    let read = std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut lines);
    if read.is_err() {
        panic!("{}", wait(child).err());
    }
    assert_eq!(&lines, b"1\n0\n");
    check_jail(child.id());
    drop(child.stdin.take());
    wait(child).expect_code(9);
}

fn check_jail(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the pod's process");
    let has = |line: &str| {
        assert!(
            status.lines().any(|known| known == line),
            "no {line:?} in {status}"
        );
    };
    has(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"));
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .iter()
        .for_each(|set| has(&format!("{set}:\t0000000000000000")));
    has("NoNewPrivs:\t1");
    has("Seccomp:\t2");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
    let points: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert_eq!(points, ["/", "/rkt"]);
}

//! What users get wrong, and what hosts lack: a clear error, the right exit code, nothing left behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::mounted::Mounted;
use tests::running::Running;
use tests::{Finished, fairing, fairing_in, finish, proved, run_sh, temporary, test_image};

/// Runs busybox with `options`; expects fairing's own failure and `words` in its error.
fn refused(options: &[&str], words: &[&str]) -> Finished {
    let finished = finish(&mut run_sh(options, "echo ran")).expect_code(254);
    assert!(
        words.iter().all(|word| finished.err().contains(word)),
        "{words:?} not in: {}",
        finished.err()
    );
    assert_eq!(finished.out(), "");
    finished
}

#[test]
fn limits_that_cannot_be_honoured_are_refused() {
    refused(&["--memory=1Mi"], &["memory"]);
    refused(&["--memory=4000Gi"], &["memory"]);
    refused(&["--cpus=1000"], &["CPUs"]);
    refused(&["--scratch-size=1Mi"], &["scratch"]);
}

#[test]
fn user_that_the_image_does_not_know_is_refused() {
    refused(
        &["--user=nobody-here", "--group=nobody-here"],
        &["nobody-here"],
    );
}

#[test]
fn image_that_is_missing_truncated_or_none_is_refused_and_leaves_nothing() {
    let missing = finish(fairing().args(["run", "/no/such/image"])).expect_code(254);
    assert!(
        missing.err().contains("/no/such/image"),
        "{}",
        missing.err()
    );

    let whole = fs::read(test_image("busybox.aci")).expect("the ACI can be read");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cut = folder.path().join("cut.aci");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("room for half an image");
    let before = images();
    let truncated = finish(fairing().args(["image", "import"]).arg(&cut)).expect_code(254);
    assert!(truncated.err().contains("cut.aci"), "{}", truncated.err());
    let noise = folder.path().join("noise");
    fs::write(&noise, [0x5a; 4096]).expect("room for noise");
    finish(fairing().args(["image", "import"]).arg(&noise)).expect_code(254);
    assert_eq!(images(), before);
}

fn images() -> String {
    finish(fairing().args(["image", "list", "--format=json"]))
        .expect_code(0)
        .out()
}

/// What becomes of a file's bytes; `None` = the file is removed.
type Damage = Option<fn(&mut Vec<u8>)>;

/// A copy of our stage 1 in which `file` is damaged.
fn damaged_stage1(file: &str, damage: Damage) -> tempfile::TempDir {
    let copy = tests::temporary("fairing-stage1-");
    let mut command = Command::new("cp");
    command.args(["-a", "--sparse=always"]);
    command
        .arg(tests::checkout().join("target/stage1-kvm/."))
        .arg(copy.path());
    finish(&mut command).expect_code(0);
    let path = copy.path().join(file);
    let mut bytes = fs::read(&path).expect("the file is there");
    match damage {
        Some(damage) => {
            damage(&mut bytes);
            fs::write(&path, bytes).expect("the copy can be written");
        }
        None => fs::remove_file(&path).expect("the copy can be removed"),
    }
    copy
}

#[test]
fn stage1_that_is_missing_or_damaged_is_named() {
    refused(&["--stage1=/no/such/stage1"], &["/no/such/stage1"]);
    let halved: Damage = Some(|bytes| bytes.truncate(bytes.len() / 2));
    let noise: Damage = Some(|bytes| bytes.fill(0x5a));
    // e_machine of an ELF file: EM_AARCH64.
    let foreign: Damage = Some(|bytes| bytes[18..20].copy_from_slice(&183_u16.to_le_bytes()));
    let relabelled: Damage = Some(|bytes| {
        let text = String::from_utf8_lossy(bytes).replace("amd64", "aarch64");
        *bytes = text.into_bytes();
    });
    let (kernel, initramfs) = ("rootfs/vmlinux", "rootfs/initramfs");
    let cases: [(&str, Damage, &[&str]); 8] = [
        (kernel, None, &["vmlinux", "stage 1"]),
        (kernel, halved, &["kernel", "vmlinux", "--stage1"]),
        (kernel, noise, &["kernel", "vmlinux", "--stage1"]),
        (kernel, foreign, &["kernel", "vmlinux", "--stage1"]),
        (initramfs, None, &["initramfs", "stage 1"]),
        (initramfs, halved, &["initramfs", "damaged", "--stage1"]),
        (initramfs, noise, &["initramfs", "damaged", "--stage1"]),
        ("manifest", relabelled, &["aarch64", "amd64"]),
    ];
    for (file, damage, words) in cases {
        let stage1 = damaged_stage1(file, damage);
        refused(
            &["--stage1", stage1.path().to_str().expect("a UTF-8 path")],
            words,
        );
    }
}

/// Runs busybox where `hide` has been done to the host's devices; expects `words` in fairing's error.
fn refused_where(hide: &str, words: &[&str]) {
    let pod = run_sh(&[], "echo ran");
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        &format!("{hide} && exec \"$0\" \"$@\""),
    ]);
    command.arg(pod.get_program()).args(pod.get_args());
    let finished = finish(command.stdin(Stdio::null())).expect_code(254);
    assert!(
        words.iter().all(|word| finished.err().contains(word)),
        "{words:?} not in: {}",
        finished.err()
    );
}

#[test]
fn host_without_kvm_is_told_so_with_what_to_do() {
    let no_device = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/random c 1 8 && mknod -m 666 /dev/urandom c 1 9";
    refused_where(no_device, &["/dev/kvm", "fairing doctor"]);
    refused_where(
        "mount --bind /dev/null /dev/kvm",
        &["/dev/kvm", "fairing doctor"],
    );
}

#[test]
fn memory_that_no_kernel_boots_in_is_an_error_that_says_so() {
    refused(&["--memory=7Mi"], &["memory", "8Mi"]);
    // What is allowed is enough.
    let finished = finish(&mut run_sh(&["--memory=8Mi", "--rm"], "echo booted")).expect_code(0);
    assert_eq!(finished.out(), "booted\n");
}

#[test]
fn full_disk_of_the_host_is_an_io_error_in_the_guest_and_said_and_other_pods_run_on() {
    let folder = temporary("fairing-full-");
    let disk = Mounted::new(
        "tmpfs",
        "size=192m",
        Path::new("tmpfs"),
        folder.path().join("disk"),
    );
    let run = |options: &[&str], script: &str| {
        let mut command = fairing_in(disk.path());
        command.arg("run").args(options).arg(test_image("busybox"));
        command.args(["--", "/bin/sh", "-c", &proved(script)]);
        command
    };
    let mut other = Running::with_stdin(&mut run(
        &["-i"],
        // What it writes itself has no room either.
        "echo up; read word; echo $word",
    ));
    assert_eq!(other.line(), "up");
    let finished = finish(&mut run(
        &[],
        "dd if=/dev/zero of=/big bs=1M count=300 conv=fsync && echo written",
    ));
    assert!(
        finished.code != 0 && !finished.out().contains("written"),
        "{}",
        finished.out()
    );
    // The guest's ext4 may have shut itself before dd is told.
    let guests = ["Input/output error", "Read-only file system"];
    let err = finished.err();
    assert!(guests.iter().any(|said| err.contains(said)), "{err}");
    assert!(err.contains("disk is full"), "{err}");
    other.write("on\n");
    assert_eq!(other.line(), "on");
    other.finish().expect_code(0);
    // Also where no byte is free.
    finish(fairing_in(disk.path()).args(["gc", "--grace-period=0s"])).expect_code(0);
}

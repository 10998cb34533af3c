//! What users get wrong, and what hosts lack: a clear error, the right exit code, nothing left behind.

use std::fs;
use std::process::Command;

use tests::{Finished, fairing, finish, run_sh, test_image};

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

#[test]
fn stage1_that_is_missing_or_damaged_is_named() {
    let missing = refused(&["--stage1=/no/such/stage1"], &["/no/such/stage1"]);
    drop(missing);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("stage1");
    let source = tests::checkout().join("target/stage1-kvm");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&source)
        .arg(&copy)
        .status()
        .expect("cp runs");
    assert!(copied.success());
    fs::write(copy.join("rootfs/vmlinux"), b"no kernel at all").expect("the copy can be written");
    refused(
        &["--stage1", copy.to_str().expect("a UTF-8 path")],
        &["kernel"],
    );
}

#[test]
fn full_disk_of_the_host_is_an_io_error_in_the_guest_and_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=192m", "tmpfs"])
        .arg(folder.path())
        .status();
    assert!(mount.expect("mount runs").success());
    let script = "dd if=/dev/urandom of=/big bs=1M count=300 && sync && echo written";
    let mut command = Command::new(tests::checkout().join("target/fairing"));
    command
        .arg("--dir")
        .arg(folder.path())
        .arg("run")
        .arg(test_image("busybox"));
    let finished = finish(command.args(["--", "/bin/sh", "-c", script]));
    let unmounted = Command::new("umount")
        .arg(folder.path())
        .status()
        .expect("umount runs");
    assert!(
        finished.err().contains("disk is full"),
        "{}",
        finished.err()
    );
    assert!(!finished.out().contains("written"), "{}", finished.out());
    assert!(unmounted.success(), "something still holds the store");
}

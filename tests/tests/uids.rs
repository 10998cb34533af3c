//! The uids of pods under root: of the range that the configuration sets, one a pod until its files are gone.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use tests::{fairing, finish, run_sh, wait};

#[test]
fn pod_has_a_uid_of_the_configured_range_until_none_is_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().to_str().expect("a UTF-8 path");
    fs::write(
        folder.path().join("config.toml"),
        "pod-uids = \"100000:1\"\n",
    )
    .expect("a configuration");
    let mut child = run_sh(&["-i", "--user-config", config], "echo up; read line")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fairing starts");
    let mut first = [0; 3];
    let stdout = child.stdout.as_mut().expect("a pipe");
    if stdout.read_exact(&mut first).is_err() {
        panic!("{}", wait(child).err());
    }
    assert_eq!(&first, b"up\n");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its process");
    assert!(
        status.contains("\nUid:\t100000\t100000\t100000\t100000\n"),
        "{status}"
    );

    let second = || finish(&mut run_sh(&["--rm", "--user-config", config], "true"));
    let refused = |finished: tests::Finished| {
        let finished = finished.expect_code(254);
        let named = finished.err().contains("pod-uids = \"100000:1\"");
        assert!(named, "{}", finished.err());
    };
    refused(second());
    drop(child.stdin.take());
    // `read` fails at the end of its input.
    wait(child).expect_code(1);
    // The pod has ended; its files still carry the uid.
    refused(second());
    finish(fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
    second().expect_code(0);
}

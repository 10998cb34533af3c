//! The built entrypoints on a host without a /dev/kvm that can be opened: what to do is said, the exit code is 254.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// An entrypoint, called in a pod directory where /dev has nothing but `null`, and a /dev/kvm that may not be opened if
/// `kvm`.
fn call(name: &str, kvm: bool) -> Output {
    let pod = tempfile::tempdir().expect("a temporary folder");
    let manifest = r#"{"acVersion":"0.8.11","acKind":"PodManifest","apps":[]}"#;
    fs::write(pod.path().join("pod"), manifest).expect("a pod manifest");
    let entrypoint = pod.path().join(name);
    symlink(env!("CARGO_BIN_EXE_stage1"), &entrypoint).expect("an entrypoint");
    // A device is not opened through a mount that has none, whoever tries.
    let script = r#"
        mkdir dev && touch dev/null dev/kvm && mount --bind /dev/null dev/null &&
        mount --bind /dev/null dev/kvm && mount -o remount,bind,nodev dev/kvm || exit 99
        [ "$1" = true ] || { umount dev/kvm && rm dev/kvm || exit 99; }
        mount --rbind dev /dev && exec "$2" --net=none 6733aee0-29d7-4e4c-b2b0-5c4b3a0d0b57"#;
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(kvm.to_string())
        .arg(&entrypoint)
        .current_dir(pod.path())
        .output()
        .expect("unshare starts")
}

#[test]
fn run_without_kvm_says_what_to_do() {
    for (kvm, advice) in [(false, "fairing doctor"), (true, "usermod -aG kvm")] {
        let output = call("run", kvm);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(254), "{text}");
        assert!(
            text.contains("open /dev/kvm") && text.contains(advice),
            "{text}"
        );
    }
}

#[test]
fn probe_without_kvm_answers_none() {
    for kvm in [false, true] {
        let output = call("probe", kvm);
        assert!(output.status.success(), "{output:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(answer["kvm"], "none");
    }
}

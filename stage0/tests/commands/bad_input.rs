//! What users get wrong and hosts lack: a clear error, exit code 254, nothing left behind.

use std::fs;
use std::process::{Command, Output};

use crate::recorder::{Host, RECORD};

/// Fails unless fairing left with its own failure code and said `reason`, and no pod is there.
#[track_caller]
fn expect_refused(host: &Host, output: &Output, reason: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(254), "{text}");
    assert!(text.contains(reason), "{reason:?} not in: {text}");
    assert!(output.stdout.is_empty());
    for folder in ["embryo", "prepare", "prepared", "run", "garbage"] {
        assert!(host.pods(folder).is_empty(), "a pod is left in {folder}");
    }
}

#[test]
fn stage1_of_another_architecture_is_refused() {
    let host = Host::new(RECORD);
    let path = host.path("stage1/manifest");
    let manifest = fs::read_to_string(&path).expect("a manifest");
    let labelled = manifest.replace(
        "\"annotations\"",
        r#""labels":[{"name":"arch","value":"ppc64le"}],"annotations""#,
    );
    fs::write(&path, labelled).expect("a manifest");
    let output = host.pod("run", &[]).output().expect("fairing starts");
    expect_refused(&host, &output, "is for ppc64le");
    assert!(!host.path("record").exists());
}

#[test]
fn image_of_another_architecture_is_refused() {
    let host = Host::new(RECORD);
    let manifest = br#"{"acVersion":"0.8.11","acKind":"ImageManifest","name":"other","labels":[
        {"name":"os","value":"linux"},{"name":"arch","value":"aarch64"}],
        "app":{"exec":["/x"],"user":"0","group":"0"}}"#;
    let mut aci = tar::Builder::new(Vec::new());
    for (name, content) in [("manifest", &manifest[..]), ("rootfs/x", b"x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        aci.append_data(&mut header, name, content)
            .expect("an entry");
    }
    let path = host.path("image.tar");
    fs::write(path, aci.into_inner().expect("an ACI")).expect("room for it");
    let output = host.pod("run", &[]).output().expect("fairing starts");
    expect_refused(&host, &output, "aarch64");
    assert_eq!(host.stdout(&["image", "list", "--format=json"]), "[]\n");
}

#[test]
fn image_with_a_blob_of_another_digest_is_refused() {
    let host = Host::new(RECORD);
    let layout = host.path("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a layout");
    let digest = "0".repeat(64);
    let content = "{}";
    fs::write(blobs.join(&digest), content).expect("a blob");
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("the layout's version");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "digest":"sha256:{digest}","size":{}}}]}}"#,
        content.len()
    );
    fs::write(layout.join("index.json"), index).expect("an index");
    let mut command = host.command(&["run", "--stage1"]);
    command.arg(host.path("stage1")).arg(&layout);
    let output = command.output().expect("fairing starts");
    expect_refused(&host, &output, &format!("sha256:{digest}"));
    assert_eq!(host.stdout(&["image", "list", "--format=json"]), "[]\n");
}

#[test]
fn uids_that_belong_to_others_and_unknown_settings_are_refused() {
    let host = Host::new(RECORD);
    fs::create_dir(host.path("config")).expect("a folder");
    for (setting, reason) in [
        ("pod-uids = \"0:65536\"", "below 60000"),
        ("pod-uids = \"65000:1000\"", "65534"),
        ("pod-uids = \"100000:0\"", "no uid"),
        ("pod-uids = 100000", "pod-uids"),
        ("pod-uid = \"100000:1\"", "unknown field"),
    ] {
        fs::write(host.path("config/config.toml"), setting).expect("a configuration");
        let output = host.pod("run", &[]).output().expect("fairing starts");
        expect_refused(&host, &output, reason);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("config.toml"), "{text}");
    }
    fs::write(host.path("config/config.toml"), "pod-uids = \"100000:10\"")
        .expect("a configuration");
    host.pod("run", &[]).status().expect("fairing starts");
    let manifest = host.stdout(&["cat-manifest", &host.pods("run")[0]]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let set = serde_json::json!({"name": "fairing/pod-uids", "value": "100000:10"});
    assert!(
        manifest["annotations"]
            .as_array()
            .expect("a list")
            .contains(&set)
    );
}

#[test]
fn image_that_is_no_stage1_is_not_taken_for_one() {
    let host = Host::new(RECORD);
    let image = host.path("image.tar");
    let id = host.stdout(&["image", "import", image.to_str().expect("a path")]);
    for flag in ["stage1", "stage1-hash"] {
        let words = ["run", &format!("--{flag}={}", id.trim()), id.trim()];
        expect_refused(&host, &host.output(&words), "is no stage 1");
    }
}

#[test]
fn ports_that_no_app_has_are_refused_before_there_is_a_pod() {
    let host = Host::new(RECORD);
    for (ports, reason) in [
        (&["--port=http:80"][..], "no app has it"),
        (&["--port=http"], "NAME:[IP:]HOSTPORT"),
    ] {
        let output = host.pod("run", ports).output().expect("fairing starts");
        expect_refused(&host, &output, reason);
    }
}

#[test]
fn closed_stdio_becomes_nothing_else() {
    let host = Host::new(RECORD);
    let fairing = host.pod("run", &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh"]);
    command
        .arg(fairing.get_program())
        .args(fairing.get_args())
        .env("RECORD", host.path("record"));
    assert_eq!(command.status().expect("sh starts").code(), Some(42));
    let record = fs::read_to_string(host.path("record")).expect("a record");
    // The shell that records has its stdout in the record.
    for descriptor in ["fd0=/dev/null", "fd2=/dev/null"] {
        assert!(record.lines().any(|line| line == descriptor), "{record}");
    }
    let lock = record
        .lines()
        .find_map(|line| line.strip_prefix("RKT_LOCK_FD="))
        .expect("a lock");
    assert!(lock.parse::<u32>().expect("a number") > 2, "{record}");
}

/// `fairing` with these words where /dev has nothing but `null`, and a /dev/kvm that may not be opened if `kvm`.
fn without_kvm(host: &Host, kvm: bool, words: &[&str]) -> Output {
    // A device is not opened through a mount that has none, whoever tries.
    let script = r#"
        cd "$1" && mkdir dev && touch dev/null dev/kvm && mount --bind /dev/null dev/null &&
        mount --bind /dev/null dev/kvm && mount -o remount,bind,nodev dev/kvm || exit 99
        [ "$2" = true ] || { umount dev/kvm && rm dev/kvm || exit 99; }
        shift 2 && mount --rbind dev /dev && exec "$@""#;
    let fairing = host.command(words);
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(host.path("."))
        .arg(kvm.to_string())
        .arg(fairing.get_program())
        .args(fairing.get_args())
        .output()
        .expect("unshare starts")
}

#[test]
fn doctor_on_a_host_without_kvm_says_what_to_do() {
    for (kvm, advice) in [(false, "kvm_intel or kvm_amd"), (true, "usermod -aG kvm")] {
        let host = Host::new(RECORD);
        let stage1 = format!("--stage1={}", host.path("stage1").display());
        let output = without_kvm(&host, kvm, &["doctor", &stage1]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 8, "{text}");
        assert!(
            lines[0].starts_with("missing  device: ") && lines[0].contains(advice),
            "{text}"
        );
        assert!(lines[1].starts_with("ok       stage 1: recorder"), "{text}");
        assert!(lines[2].starts_with("missing  kvm: "), "{text}");
    }
}

#[test]
fn doctor_as_json_has_every_check() {
    let host = Host::new(RECORD);
    let output = without_kvm(
        &host,
        false,
        &["doctor", "--stage1=/nowhere", "--format=json"],
    );
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<_> = checks
        .as_array()
        .expect("a list")
        .iter()
        .map(|check| check["name"].as_str().expect("a name"))
        .collect();
    let first = ["device", "stage 1", "kvm", "kernel", "data"];
    assert_eq!(names[..5], first);
    assert_eq!(names[5..], ["networks", "landlock", "shared folders"]);
    assert_eq!(checks[0]["ok"], false);
    assert_eq!(checks[3]["ok"], true);
    assert!(
        checks[1]["found"]
            .as_str()
            .expect("text")
            .contains("/nowhere")
    );
}

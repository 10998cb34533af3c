//! What a pod and its apps may use: flags of podman's kind in the guest, and the cgroup that caps the whole process on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::leftovers::{PODS, expect_no_empty_cgroup_of_pods};
use tests::mounted::Mounted;
use tests::pod::Pod;
use tests::running::Running;
use tests::{fairing, fairing_in, finish, image_id, proved, succeed, temporary, test_image};

/// What `fairing status` says of `key`.
#[track_caller]
fn status(pod: &Pod, key: &str) -> String {
    let mut status = fairing();
    status.args(["status", pod.uuid()]);
    finish(&mut status).expect_code(0).value(key)
}

#[track_caller]
fn json_of(words: &[&str]) -> Value {
    let output = finish(fairing().args(words)).expect_code(0).out();
    serde_json::from_str(&output).expect("JSON")
}

fn value(group: &Path, file: &str) -> String {
    let text = fs::read_to_string(group.join(file)).expect("a file of the cgroup");
    text.trim().to_owned()
}

#[test]
fn host_caps_the_process_of_a_pod_exactly_and_keeps_no_cgroup_after_it() {
    let pod = Pod::start(
        &["--memory=96Mi", "--cpu=500m"],
        "echo ready; exec sleep 1000",
    );
    let group = PathBuf::from(PODS).join(pod.uuid());
    // Beside it there is a worker of KVM's.
    let (members, pid) = (value(&group, "cgroup.procs"), status(&pod, "pid"));
    assert!(
        members.lines().any(|member| member == pid),
        "{pid} not in {members}"
    );
    // The machine's 160 MiB, its tables, and what the process itself may take.
    assert_eq!(value(&group, "memory.max"), (226_u64 << 20).to_string());
    assert_eq!(value(&group, "cpu.max"), "50000 100000");
    let threads: u64 = value(&group, "pids.max").parse().expect("a limit");
    let now: u64 = value(&group, "pids.current").parse().expect("a number");
    assert!(now > 4 && now < threads, "{now} of {threads}");
    // To boot takes all of a CPU, of which it had a half.
    let throttled = value(&group, "cpu.stat");
    let throttled = throttled
        .lines()
        .find_map(|line| line.strip_prefix("nr_throttled "));
    assert!(throttled.is_some_and(|times| times != "0"));
    let cgroup = format!("/fairing/{}", pod.uuid());
    assert_eq!(status(&pod, "jail-cgroup"), cgroup);
    let limits = status(&pod, "jail-cgroup-limits");
    assert!(
        limits.contains("cpu.max:50000 100000,memory.max:236978176"),
        "{limits}"
    );
    let stats = &json_of(&["stats", "--format=json"])[0];
    assert_eq!(stats["name"], pod.uuid());
    assert_eq!(stats["memory_limit"], 226_u64 << 20);
    let memory = stats["memory"].as_u64().expect("a number");
    assert!((16 << 20..226 << 20).contains(&memory), "{stats}");
    assert!(
        stats["cpu_time"].as_u64() > Some(0) && stats["threads"].as_u64() > Some(4),
        "{stats}"
    );
    let inspected = &json_of(&["inspect", pod.uuid()])[0];
    assert_eq!(
        (&inspected["state"], &inspected["jail"]["cgroup"]),
        (&json!("running"), &json!(cgroup))
    );
    let limit = &inspected["manifest"]["apps"][0]["app"]["isolators"][0]["value"]["limit"];
    assert_eq!(limit, "96Mi", "{inspected}");
    pod.end();
    assert!(!group.exists(), "the pod's cgroup goes with it");
    expect_no_empty_cgroup_of_pods();
}

#[test]
fn pod_that_the_host_kills_for_its_memory_has_that_in_its_status() {
    let started = succeed(&mut tests::run_sh(&["-d"], "exec sleep 1000")).out();
    let uuid = started.trim();
    let ask = |options: &[&str]| succeed(fairing().arg("status").args(options).arg(uuid));
    assert!(!ask(&[]).out().contains("out-of-memory"));
    // Less than the machine has already.
    fs::write(PathBuf::from(PODS).join(uuid).join("memory.max"), "8M").expect("a cgroup");
    ask(&["--wait"]);
    let status = ask(&[]);
    assert_eq!(status.value("state"), "exited");
    assert_eq!(status.value("out-of-memory"), "true");
    succeed(fairing().args(["rm", uuid]));
    expect_no_empty_cgroup_of_pods();
}

#[test]
fn limits_by_flags_of_podman_hold_in_the_machine() {
    let facts = "grep CapBnd /proc/self/status | cut -f2; ulimit -n; ulimit -Hn; \
        cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/conf/lo/forwarding /sys/fs/cgroup/pids.max; \
        (for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done) 2>&1 | grep -c \"can't fork\"; ";
    let flags = [
        "--rm",
        "--cap-drop=ALL",
        "--cap-add=chown,NET_ADMIN",
        "--ulimit=nofile=77:99",
        "--pids-limit=10",
        "--sysctl=kernel.msgmax=4321",
        "--sysctl=net.ipv4.conf.lo.forwarding=1",
    ];
    let finished = finish(&mut tests::run_sh(&flags, facts)).expect_code(0);
    assert_eq!(
        finished.out(),
        "0000000000001001\n77\n99\n4321\n1\n10\n1\n",
        "{}",
        finished.err()
    );
}

/// Joins the cgroup in $1, and becomes the rest.
const JOIN: &str = "echo 0 >\"$1/cgroup.procs\" && shift && exec \"$@\"";

#[test]
fn pod_in_a_delegated_cgroup_stays_below_it_and_its_disk_is_capped_there() {
    let folder = temporary("fairing-limits-");
    let disk = Mounted::ext4(folder.path(), "disk");
    let store = disk.path().join("store");
    let mut import = fairing_in(&store);
    succeed(import.args(["image", "import"]).arg(test_image("busybox")));
    let id = image_id(&store);
    let script = proved("echo ready; exec sleep 1000");
    let manifest = json!({"acVersion": "0.8.11", "acKind": "PodManifest",
        "apps": [{"name": "app", "image": {"id": id},
            "app": {"exec": ["/bin/sh", "-c", script], "user": "0", "group": "0"}}],
        "isolators": [{"name": "resource/block-bandwidth", "value": {"default": true, "limit": "2M"}}]});
    let (path, file) = (folder.path().join("pod"), folder.path().join("uuid"));
    fs::write(&path, manifest.to_string()).expect("room for a manifest");
    let delegated = Path::new("/sys/fs/cgroup/fairing-delegated");
    fs::create_dir(delegated).expect("a cgroup");
    xattr::set(delegated, "user.delegate", b"1").expect("an attribute");
    let mut fairing = fairing_in(&store);
    fairing.arg("run").arg("--pod-manifest").arg(&path);
    fairing.arg("--uuid-file-save").arg(&file);
    let mut run = Command::new("sh");
    run.args(["-c", JOIN, "sh"])
        .arg(delegated)
        .arg(fairing.get_program());
    let mut running = Running::start(run.args(fairing.get_args()));
    assert_eq!(running.line(), "ready");
    let uuid = fs::read_to_string(&file).expect("the pod's UUID");
    let group = delegated.join(uuid.trim());
    let members = value(&group, "cgroup.procs");
    let pid = running.pid().to_string();
    assert!(
        members.lines().any(|member| member == pid),
        "{pid} not in {members}"
    );
    assert_eq!(value(delegated, "cgroup.procs"), "");
    let rates = value(&group, "io.max");
    assert!(
        rates.ends_with(" rbps=2000000 wbps=2000000 riops=max wiops=max"),
        "{rates}"
    );
    running.signal("TERM");
    assert_eq!(running.finish().expect_code(143).err(), "");
    succeed(fairing_in(&store).args(["gc", "--grace-period=0s"]));
    fs::remove_dir(delegated).expect("nothing is left below it");
}

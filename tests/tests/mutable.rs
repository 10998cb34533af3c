//! Pods whose apps come and go while they run.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::leftovers::Leftovers;
use tests::mounted::Mounted;
use tests::running::Running;
use tests::sandbox::Sandbox;
use tests::{fairing, finish, proved, temporary, test_image};

#[test]
fn app_runs_when_it_is_told_to_keeps_its_files_until_it_is_removed_and_others_take_its_place() {
    let pod = Sandbox::start(&[]);
    assert_eq!(pod.app("list", &[]).expect_code(0).out(), "NAME  STATE\n");
    let counts = "echo x >>/count; grep -c x /count; exit 3";
    assert_eq!(pod.add("one", &[], counts).expect_code(0).out(), "one\n");
    assert_eq!(pod.state("one"), "created");
    assert_eq!(pod.runs("one"), "1\n");
    assert_eq!(pod.runs("one"), "1\n2\n");
    let status = pod.app("status", &["--app=one"]).expect_code(0);
    assert_eq!(
        (status.value("state"), status.value("exit_code")),
        ("exited".into(), "3".into())
    );
    pod.does("rm", "one");
    assert_eq!(pod.state("one"), "none");
    // Another image at the same place of the images disk, and the first again, without what it had written.
    let names = ". /etc/os-release; echo $ID; ls /count 2>&1";
    pod.add_of("debian.tar", "one", &[], names).expect_code(0);
    assert_eq!(
        pod.runs("one"),
        "debian\nls: cannot access '/count': No such file or directory\n"
    );
    pod.add("two", &[], counts).expect_code(0);
    assert_eq!(pod.runs("two"), "1\n");
    pod.does("rm", "one");
    pod.add("one", &[], counts).expect_code(0);
    assert_eq!(pod.runs("one"), "1\n");
    assert_eq!(pod.runs("two"), "1\n2\n");
    pod.end();
}

#[test]
fn app_is_asked_to_end_then_killed_and_the_pod_goes_on() {
    let pod = Sandbox::start(&["--stop-timeout=1s"]);
    let folder = temporary("fairing-up-");
    let shared = format!("-v={}:/s", folder.path().display());
    let waits = |name: &str, trap: &str| {
        format!("trap '{trap}' TERM; touch /s/{name}; while :; do usleep 10000; done")
    };
    for (name, trap, code) in [("heeds", "echo told; exit 7", "7"), ("deaf", "", "137")] {
        pod.add(name, &[&shared], &waits(name, trap)).expect_code(0);
        pod.is_refused("stop", name, "not running");
        pod.does("start", name);
        pod.is_refused("start", name, "runs already");
        assert_eq!(pod.state(name), "running");
        let up = folder.path().join(name);
        tests::wait_until("the app waits", || up.exists());
        let enter = format!("--app={name}");
        let mut entered = fairing();
        entered.args(["app", "exec", &enter, pod.uuid(), "/bin/sh", "-c"]);
        finish(entered.arg(proved("exit 5"))).expect_code(5);
        pod.does("stop", name);
        let status = pod.app("status", &[&enter]).expect_code(0);
        assert_eq!(status.value("exit_code"), code);
    }
    assert_eq!(pod.logs("heeds"), "told\n");
    // One that runs is stopped first.
    pod.does("start", "heeds");
    pod.does("rm", "heeds");
    assert_eq!(
        (pod.state("heeds"), pod.state("deaf")),
        ("none".into(), "exited".into())
    );
    pod.end();
}

#[test]
fn what_does_not_fit_a_pod_is_refused_and_the_pod_is_as_before() {
    let pod = Sandbox::start(&["--memory=256Mi", "--cpu=1"]);
    pod.add("one", &["--memory=100Mi"], "exit 0").expect_code(0);
    let refused = |flags: &[&str], why: &[&str]| {
        let refused = pod.add("two", flags, "exit 0").expect_code(254);
        let err = refused.err();
        assert!(why.iter().all(|word| err.contains(word)), "{err}");
        assert_eq!(pod.app("list", &["--no-legend"]).out(), "one  created\n");
    };
    refused(&["--memory=157Mi"], &["157 MiB", "256 MiB", "100 MiB"]);
    refused(&["--cpu=2"], &["2000m"]);
    refused(&["-v=/no/such/folder:/x"], &["/no/such/folder"]);
    refused(&["--name=one"], &["already"]);
    pod.add("two", &["--memory=156Mi"], "exit 0").expect_code(0);
    // It is added whatever its image has, and starting it says why that cannot be.
    let mut add = fairing();
    add.args(["app", "add", pod.uuid()])
        .arg(test_image("busybox"));
    finish(add.args(["--name=three", "--exec=/no/such/program"])).expect_code(0);
    pod.is_refused("start", "three", "no such");
    pod.wait_for("three", "exited");
    for deed in ["start", "stop", "rm"] {
        pod.is_refused(deed, "four", "no app four");
    }
    pod.does("rm", "three");
    pod.end();
}

/// Memory of the pod's process that is resident, MiB.
fn resident_mib(pod: &Sandbox) -> u64 {
    let stats = finish(fairing().args(["stats", "--format=json", pod.uuid()])).expect_code(0);
    let stats: Value = serde_json::from_str(&stats.out()).expect("JSON");
    stats[0]["memory"].as_u64().expect("a number") >> 20
}

/// What the host caps the pod's process at in CPU time.
fn cpu_cap(pod: &Sandbox) -> String {
    let status = finish(fairing().args(["status", pod.uuid()])).expect_code(0);
    let caps = status.value("jail-cgroup-limits");
    let mut caps = caps.split(',').map(str::to_owned);
    caps.find_map(|cap| Some(cap.strip_prefix("cpu.max:")?.to_owned()))
        .expect("a cap of CPU time")
}

#[test]
fn machine_grows_for_apps_that_come_gives_back_what_they_had_and_refuses_what_is_beyond_its_most() {
    let limits = [
        "--memory=300Mi",
        "--max-memory=700Mi",
        "--cpu=1",
        "--max-cpu=2",
    ];
    let pod = Sandbox::start(&limits);
    let counts = "nproc; awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo";
    let machine = |name: &str| {
        let said = pod.runs(name);
        let numbers: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
        let [.., cpus, mib] = numbers[..] else {
            panic!("{said}");
        };
        (cpus, mib)
    };
    pod.add("small", &["--memory=100Mi", "--cpu=500m"], counts)
        .expect_code(0);
    let (cpus, begins_mib) = machine("small");
    assert!(
        cpus == 1 && begins_mib < 364,
        "{cpus} CPUs, {begins_mib} MiB"
    );
    assert_eq!(cpu_cap(&pod), "100000 100000");
    // A buffer of 350 MiB, filled; then who it was says how much that had been.
    let uses = "dd if=/dev/zero of=/dev/null bs=350M count=1 2>/dev/null && nproc && cat /sys/fs/cgroup/memory.peak";
    pod.add("large", &["--memory=400Mi", "--cpu=1500m"], uses)
        .expect_code(0);
    assert_eq!(cpu_cap(&pod), "200000 100000");
    let said = pod.runs("large");
    let (cpus, peak) = said.split_once('\n').expect("two lines");
    let peak: u64 = peak.trim().parse().expect("bytes");
    assert!(cpus == "2" && peak >= 350 << 20, "{said}");
    let refused = pod
        .add("huge", &["--memory=201Mi"], "exit 0")
        .expect_code(254);
    let figures = ["201 MiB", "700 MiB", "500 MiB", "--max-memory"];
    assert!(
        figures.iter().all(|figure| refused.err().contains(figure)),
        "{}",
        refused.err()
    );
    let refused = pod.add("wide", &["--cpu=2001m"], "exit 0").expect_code(254);
    assert!(refused.err().contains("2001m"), "{}", refused.err());
    let used_mib = resident_mib(&pod);
    pod.does("rm", "large");
    // Of 204 MiB that were plugged nearly all.
    let left_mib = resident_mib(&pod);
    assert!(
        left_mib + 150 < used_mib,
        "{left_mib} of {used_mib} MiB are still used"
    );
    let (cpus, mib) = machine("small");
    assert!(cpus == 1 && mib < begins_mib + 50, "{cpus} CPUs, {mib} MiB");
    assert_eq!(cpu_cap(&pod), "100000 100000");
    pod.add("third", &["--memory=600Mi"], counts).expect_code(0);
    let (_, mib) = machine("third");
    assert!(mib > begins_mib + 350, "{mib} MiB");
    pod.end();
}

#[test]
fn pod_that_is_to_begin_larger_than_it_may_be_is_refused() {
    for limits in [
        ["--memory=2Gi", "--max-memory=1Gi"],
        ["--cpu=2", "--max-cpu=1500m"],
    ] {
        let mut sandbox = fairing();
        let refused = finish(sandbox.args(["app", "sandbox"]).args(limits)).expect_code(254);
        assert!(refused.err().contains(limits[1]), "{}", refused.err());
    }
}

#[test]
fn pod_that_is_not_mutable_keeps_its_apps() {
    let pod = tests::pod::Pod::start(&[], "echo ready; while :; do usleep 10000; done");
    let mut add = fairing();
    add.args(["app", "add", pod.uuid()])
        .arg(test_image("busybox"));
    let refused = finish(add.args(["--name=two"])).expect_code(254);
    assert!(refused.err().contains("app sandbox"), "{}", refused.err());
    pod.end();
}

fn loop_devices() -> String {
    finish(Command::new("losetup").arg("-a"))
        .expect_code(0)
        .out()
}

#[test]
fn folders_are_given_to_a_running_pod_and_taken_back_with_the_last_app_that_has_them() {
    let folder = temporary("fairing-given-");
    let devices = loop_devices();
    let disk = Mounted::ext4(folder.path(), "disk");
    assert_ne!(loop_devices(), devices);
    fs::write(disk.path().join("word"), "given\n").expect("room");
    let file = folder.path().join("file");
    fs::write(&file, "alone\n").expect("room");
    let pod = Sandbox::start(&[]);
    assert!(pod.shares().is_empty());
    let (whole, barred, single) = (
        format!("-v={}:/s", disk.path().display()),
        format!("-v={}:/s:ro,cache=none", disk.path().display()),
        format!("-v={}:/etc/single", file.display()),
    );
    // Both have one share of the folder, so the lock of one is the other's, too.
    let holds = "exec 9>>/s/lock; flock 9; cat /s/word /etc/single; touch /s/held; while :; do usleep 10000; done";
    let tries = "until [ -e /s/held ]; do usleep 10000; done; exec 9>>/s/lock; flock -n 9 || echo locked; echo more >>/s/word";
    let reads = "cat /s/word; touch /s/x 2>/dev/null || echo barred";
    pod.add("holds", &[&whole, &single], holds).expect_code(0);
    pod.add("tries", &[&whole], tries).expect_code(0);
    pod.add("reads", &[&barred], reads).expect_code(0);
    assert_eq!(pod.shares().len(), 3, "{:?}", pod.shares());
    pod.does("start", "holds");
    assert_eq!(pod.runs("tries"), "locked\n");
    assert_eq!(pod.logs("holds"), "given\nalone\n");
    assert_eq!(pod.runs("reads"), "given\nmore\nbarred\n");
    assert_eq!(
        fs::read_to_string(disk.path().join("word")).expect("a file"),
        "given\nmore\n"
    );
    for (name, left) in [("holds", 2), ("reads", 1), ("tries", 0)] {
        pod.does("rm", name);
        assert_eq!(pod.shares().len(), left, "after {name}: {:?}", pod.shares());
    }
    // Nor is anything open there: else the file system would stay, though no mount of it, and its loop device with it.
    drop(disk);
    tests::wait_until("nothing of the disk is used", || loop_devices() == devices);
    pod.add("again", &[&single], "cat /etc/single")
        .expect_code(0);
    assert_eq!(pod.runs("again"), "alone\n");
    pod.end();
}

#[test]
fn apps_that_come_and_go_leave_nothing() {
    finish(
        fairing()
            .args(["image", "import"])
            .arg(test_image("busybox")),
    )
    .expect_code(0);
    finish(fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
    let before = Leftovers::now();
    let pod = Sandbox::start(&[]);
    let threads = || {
        let pid = fs::read_to_string(pod.directory().join("pid")).expect("the pid");
        let threads = fs::read_dir(format!("/proc/{}/task", pid.trim()));
        threads.expect("threads").count()
    };
    let none = threads();
    let rounds = tests::rounds("apps added, started and removed", 5, 200);
    for _ in 0..rounds {
        pod.add("one", &["-i", "-v=/tmp:/s"], "echo up")
            .expect_code(0);
        assert_eq!(pod.runs("one"), "up\n");
        pod.does("rm", "one");
    }
    tests::wait_until("its threads are gone", || threads() == none);
    pod.add("two", &[], "while :; do usleep 10000; done")
        .expect_code(0);
    pod.does("start", "two");
    assert_eq!(threads(), none + 2);
    // Its end is the pod's, not its app's.
    finish(fairing().args(["stop", pod.uuid()])).expect_code(0);
    let status = finish(fairing().args(["status", pod.uuid()])).expect_code(0);
    assert_eq!(status.value("exited"), "true");
    assert_eq!(
        finish(fairing().args(["wait", pod.uuid()]))
            .expect_code(0)
            .out(),
        "0\n"
    );
    finish(fairing().args(["rm", pod.uuid()])).expect_code(0);
    assert_eq!(Leftovers::now().since(&before), [""; 0]);
}

#[test]
fn app_half_added_or_half_removed_can_be_removed() {
    let pod = Sandbox::start(&[]);
    let half_added = |name: &str| {
        let path = pod.directory().join("pod");
        let manifest = fs::read(&path).expect("the pod manifest");
        let mut manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let mut app = manifest["apps"][0].clone();
        app["name"] = name.into();
        manifest["apps"].as_array_mut().expect("apps").push(app);
        fs::write(&path, manifest.to_string()).expect("the pod manifest");
    };
    pod.add("one", &[], "echo x >>/count; cat /count")
        .expect_code(0);
    // As a command leaves it that is killed before the pod's process has heard of the app.
    half_added("two");
    assert_eq!(pod.state("two"), "unknown");
    pod.is_refused("start", "two", "no app");
    pod.does("rm", "two");
    assert_eq!(pod.state("two"), "none");
    // As one leaves it that is killed when the machine has already removed it.
    assert_eq!(pod.runs("one"), "x\n");
    let kept = fs::read(pod.directory().join("pod")).expect("the pod manifest");
    pod.does("rm", "one");
    fs::write(pod.directory().join("pod"), kept).expect("the pod manifest");
    pod.does("rm", "one");
    pod.add("one", &[], "echo x >>/count; cat /count")
        .expect_code(0);
    assert_eq!(pod.runs("one"), "x\n");
    pod.end();
}

#[test]
fn app_is_started_anew_and_removed_whatever_commands_in_it_and_cgroups_of_it_are_left() {
    let pod = Sandbox::start(&["--stop-timeout=1s"]);
    let limits = "mkdir -p /sys/fs/cgroup/a/b; echo +pids >/sys/fs/cgroup/cgroup.subtree_control; \
        cat /sys/fs/cgroup/pids.max; exec sleep 1000";
    pod.add("one", &["--pids-limit=77"], limits).expect_code(0);
    for life in 1..=2 {
        pod.does("start", "one");
        tests::wait_until("it runs", || pod.logs("one") == "77\n".repeat(life));
        // It says more than anybody hears.
        let mut yes = fairing();
        yes.args(["app", "exec", "--app=one", pod.uuid(), "yes"]);
        let mut yes = Running::start(&mut yes);
        assert_eq!(yes.line(), "y");
        pod.does("stop", "one");
        drop(yes);
    }
    pod.does("rm", "one");
    pod.add("one", &[], "cat /sys/fs/cgroup/pids.max")
        .expect_code(0);
    assert_eq!(pod.runs("one"), "max\n");
    pod.end();
}

//! Pods of several apps: what they share, how they end, what runs before and after them, what each may do.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tests::running::Running;
use tests::{fairing, finish, image_id, proved, run_sh, store, temporary, test_image};

/// One app of busybox: its name, flags, and what its shell does.
struct App<'a>(&'a str, &'a [&'a str], &'a str);

/// `fairing run OPTIONS` of these apps, each of which proves first that it runs in a machine.
fn pod(options: &[&str], apps: &[App]) -> Command {
    let mut command = fairing();
    command.args(["run", "--rm"]).args(options);
    for (index, App(name, flags, script)) in apps.iter().enumerate() {
        let next = if index == 0 { &[][..] } else { &["---"] };
        command.args(next).arg(test_image("busybox"));
        command.arg(format!("--name={name}")).args(*flags);
        command.args(["--exec=/bin/sh", "--", "-c", &proved(script)]);
    }
    command
}

/// The lines of app `name`, without its label.
fn lines_of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let label = format!("{name}: ");
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix(&*label))
        .collect()
}

#[test]
fn apps_of_a_pod_share_namespaces_and_a_volume_and_nothing_else() {
    const FACTS: &str = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done; \
        hostname; cat /etc/hostname; echo $AC_APP_NAME; ls / | grep -c own; ls /proc | grep -c '^1$'; ";
    // The first waits for a word of the second, over the volume, the loopback and the process table.
    let first = format!(
        "touch /own-one; {FACTS} until [ -e /s/two ]; do usleep 10000; done; \
         kill -0 $(cat /s/two) && echo seen; touch /s/one"
    );
    let second = format!(
        "touch /own-two; {FACTS} echo $$ > /s/pid; mv /s/pid /s/two; \
         until [ -e /s/one ]; do usleep 10000; done"
    );
    let mounted = &["--mount=volume=shared,target=/s"];
    let finished = finish(&mut pod(
        &["--hostname=pod", "--volume=shared,kind=empty"],
        &[App("one", mounted, &first), App("two", mounted, &second)],
    ))
    .expect_code(0);
    let out = finished.out();
    let (one, two) = (lines_of(&out, "one"), lines_of(&out, "two"));
    assert_eq!((one.len(), two.len()), (12, 11), "{out}");
    // PID, network, IPC and UTS are common; mounts and cgroups each app's own.
    assert_eq!(one[..4], two[..4], "{out}");
    assert!(one[4] != two[4] && one[5] != two[5], "{out}");
    assert_eq!(one[6..11], ["pod", "pod", "one", "1", "1"], "{out}");
    assert_eq!(two[6..], ["pod", "pod", "two", "1", "1"], "{out}");
    assert_eq!(one[11], "seen", "{out}");
    assert_eq!(out.lines().count(), 23, "{out}");
}

#[test]
fn app_makes_nodes_of_its_machines_disks_and_opens_none() {
    let script = "for disk in vda vdb; do IFS=: read major minor </sys/block/$disk/dev; mknod /tmp/$disk b $major $minor; \
        head -c 1 /tmp/$disk 2>&1; echo x 2>/dev/null >/tmp/$disk || echo refused; done; mknod /tmp/zero c 1 5; head -c 1 /tmp/zero | wc -c";
    let finished = finish(&mut pod(&[], &[App("one", &[], script)])).expect_code(0);
    let out = finished.out();
    let refused = |disk| format!("head: /tmp/{disk}: Operation not permitted\nrefused\n");
    assert_eq!(
        out,
        refused("vda") + &refused("vdb") + "1\n",
        "{}",
        finished.err()
    );
}

#[test]
fn app_that_fails_ends_the_pod_with_its_code_after_the_others_were_told() {
    let waits = "trap 'echo told; exit 0' TERM; touch /s/ready; while :; do usleep 10000; done";
    let fails = "until [ -e /s/ready ]; do usleep 10000; done; exit 7";
    let mounted = &["--mount=volume=shared,target=/s"];
    let finished = finish(&mut pod(
        &["--volume=shared,kind=empty"],
        &[App("waits", mounted, waits), App("fails", mounted, fails)],
    ))
    .expect_code(7);
    assert_eq!(lines_of(&finished.out(), "waits"), ["told"]);
}

#[test]
fn pod_that_is_stopped_asks_each_app_by_its_signal_and_kills_the_one_that_does_not_heed_it() {
    let script = |signal: &str, then: &str| {
        format!(
            "trap {then} {signal}; trap 'echo heard' HUP; echo up; while :; do usleep 10000; done"
        )
    };
    let asked = script("TERM", "'echo asked; exit 0'");
    let differently = script("USR1", "'echo asked; exit 0'");
    let deaf = script("TERM", "''");
    let started = finish(&mut pod(
        &["-d", "--stop-timeout=2s"],
        &[
            App("asked", &[], &asked),
            App("differently", &["--stop-signal=USR1"], &differently),
            App("deaf", &[], &deaf),
        ],
    ))
    .expect_code(0);
    let out = started.out();
    let of_pod = |words: &[&str]| {
        let mut command = fairing();
        command.args(words).arg(out.trim());
        command
    };
    let mut follower = Running::start(&mut of_pod(&["logs", "-f"]));
    let three = |follower: &mut Running, text: &str| {
        let mut lines: Vec<_> = (0..3).map(|_| follower.line()).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["asked", "deaf", "differently"].map(|app| format!("{app}: {text}"))
        );
    };
    three(&mut follower, "up");
    finish(&mut of_pod(&["kill", "--signal=HUP"])).expect_code(0);
    three(&mut follower, "heard");
    let waiting = Running::start(&mut of_pod(&["wait"]));
    finish(&mut of_pod(&["stop"])).expect_code(0);
    assert_eq!(waiting.finish().expect_code(0).out(), "137\n");
    let rest = follower.finish().out();
    let mut rest: Vec<_> = rest.lines().collect();
    rest.sort_unstable();
    assert_eq!(rest, ["asked: asked", "differently: asked"]);
    // It was to be removed when it had exited, and is there for those who come to look until another command has come.
    assert_eq!(finish(&mut of_pod(&["wait"])).expect_code(0).out(), "137\n");
    finish(fairing().arg("list")).expect_code(0);
    finish(&mut of_pod(&["status"])).expect_code(254);
}

/// A pod manifest of busybox apps, written as a user would.
fn manifest(apps: &[(&str, Value)]) -> Value {
    let id = image_id(&store());
    let apps = apps.iter().map(|(name, app)| {
        let mut app = app.clone();
        let script = proved(app["script"].as_str().expect("a script"));
        app["exec"] = json!(["/bin/sh", "-c", script]);
        app["user"] = json!("0");
        app["group"] = json!("0");
        json!({"name": name, "image": {"id": id}, "app": app})
    });
    json!({"acVersion": "0.8.11", "acKind": "PodManifest", "apps": apps.collect::<Vec<_>>(),
        "volumes": null, "isolators": null})
}

fn run_manifest(manifest: &Value) -> tests::Finished {
    let folder = temporary("fairing-manifest-");
    let path = folder.path().join("pod");
    fs::write(&path, manifest.to_string()).expect("room for a manifest");
    let mut run = fairing();
    run.args(["run", "--rm", "--pod-manifest"]).arg(&path);
    finish(&mut run)
}

fn import_busybox() {
    let mut import = fairing();
    import.args(["image", "import"]).arg(test_image("busybox"));
    finish(&mut import).expect_code(0);
}

#[test]
fn app_that_logs_by_syslog_is_heard_on_its_stderr_to_the_last_word() {
    let script = "logger -t web one; exec 2>&-; logger -t web two; logger -t web three";
    let finished = finish(&mut pod(&[], &[App("one", &["--user=7"], script)])).expect_code(0);
    let err = finished.err();
    let heard = err
        .lines()
        .filter_map(|line| Some(line.rsplit_once("web: ")?.1));
    assert_eq!(heard.collect::<Vec<_>>(), ["one", "two", "three"], "{err}");
}

#[test]
fn app_that_sends_syslog_what_is_never_closed_ends_as_any() {
    let program = env!("CARGO_BIN_EXE_lingering_log");
    let given = format!("--volume=program,kind=host,source={program},readOnly=true");
    let flags = &["--mount=volume=program,target=/program"];
    let finished = finish(&mut pod(&[&given], &[App("one", flags, "/program")])).expect_code(0);
    assert_eq!(finished.out(), "sent\n", "{}", finished.err());
    assert!(finished.err().contains("before\n"), "{}", finished.err());
}

#[test]
fn handlers_run_before_and_after_the_app_with_its_environment_and_output() {
    import_busybox();
    let handler =
        |name: &str, script: &str| json!({"name": name, "exec": ["/bin/sh", "-c", script]});
    let handlers = json!([
        handler(
            "post-stop",
            "echo after $WHO; cat /state; echo lost >&2; exit 9"
        ),
        handler(
            "pre-start",
            "cat; echo before $WHO; echo made > /state; sleep 1000 & true"
        ),
    ]);
    let app = json!({"script": "echo main; cat /state; echo changed > /state; \
        ps | grep -c 'sleep 100[0]'; exit 3",
        "environment": [{"name": "WHO", "value": "me"}], "eventHandlers": handlers});
    let finished = run_manifest(&manifest(&[("app", app)])).expect_code(3);
    let out = finished.out();
    let expected = "before me\nmain\nmade\n0\nafter me\nchanged\n";
    assert_eq!(out, expected, "{}", finished.err());
    assert!(finished.err().contains("lost"), "{}", finished.err());
}

#[test]
fn handler_that_fails_before_the_app_keeps_it_from_starting() {
    import_busybox();
    let handlers = json!([{"name": "pre-start", "exec": ["/bin/sh", "-c", "echo no; exit 5"]}]);
    let app = json!({"script": "echo main", "eventHandlers": handlers});
    let finished = run_manifest(&manifest(&[("app", app)])).expect_code(5);
    assert_eq!(finished.out(), "no\n");
    let err = finished.err();
    assert!(err.contains("pre-start handler: exit code 5"), "{err}");
}

#[test]
fn isolators_of_each_app_hold_for_it_alone() {
    import_busybox();
    const FACTS: &str = "mkdir /made 2>&1; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | cut -f2; cat /proc/self/oom_score_adj \
        /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.weight";
    let isolators = json!([
        {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_KILL"]}},
        {"name": "os/linux/no-new-privileges", "value": true},
        {"name": "os/linux/seccomp-remove-set", "value": {"set": ["@systemd/clock", "mkdir", "mkdirat"], "errno": "EXDEV"}},
        {"name": "os/linux/oom-score-adj", "value": 100},
        {"name": "os/linux/cpu-shares", "value": 512},
        {"name": "resource/memory", "value": {"limit": "1G"}},
        {"name": "resource/memory", "value": {"limit": "64Mi"}},
    ]);
    let finished = run_manifest(&manifest(&[
        ("bound", json!({"script": FACTS, "isolators": isolators})),
        ("free", json!({"script": FACTS})),
    ]))
    .expect_code(0);
    let out = finished.out();
    let bound = [
        "mkdir: can't create directory '/made': Invalid cross-device link",
        "0000000000000020",
        "1",
        "2",
        "100",
        "67108864",
        "50",
    ];
    assert_eq!(lines_of(&out, "bound"), bound, "{out}");
    let free = ["00000000a80425fb", "0", "0", "0", "max", "100"];
    assert_eq!(lines_of(&out, "free"), free, "{out}");
}

#[test]
fn app_that_makes_a_call_it_may_not_is_killed_and_ordinary_ones_go_on_under_a_whitelist() {
    let flags = [
        "--rm",
        "--user=7",
        "--seccomp=mode=retain,@docker/default-whitelist",
        "--caps-remove=CAP_KILL",
        "--oom-score-adj=7",
        "--cpu-shares=512",
    ];
    let script = "ls / >/dev/null && (echo a; sleep 0) | cat && mount -t tmpfs x /mnt; echo $?; \
        cat /proc/self/oom_score_adj /sys/fs/cgroup/cpu.weight; grep CapBnd /proc/self/status | cut -f2";
    let finished = finish(&mut run_sh(&flags, script)).expect_code(0);
    // SIGSYS, of the one program that called it.
    let expected = "a\n159\n7\n50\n00000000a80425db\n";
    assert_eq!(finished.out(), expected, "{}", finished.err());
    let finished = finish(&mut run_sh(
        &["--rm", "--caps-retain=CAP_KILL"],
        "grep CapBnd /proc/self/status | cut -f2",
    ))
    .expect_code(0);
    assert_eq!(finished.out(), "0000000000000020\n");
}

#[test]
fn app_that_uses_up_its_memory_is_killed_and_reported_and_its_neighbour_is_not() {
    import_busybox();
    let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
    let limit = json!([{"name": "resource/memory", "value": {"limit": "32Mi"}}]);
    let neighbour = "trap 'echo lives; exit 0' TERM; while :; do usleep 10000; done";
    let finished = run_manifest(&manifest(&[
        ("hog", json!({"script": hog, "isolators": limit})),
        ("neighbour", json!({"script": neighbour})),
    ]))
    .expect_code(137);
    assert_eq!(lines_of(&finished.out(), "neighbour"), ["lives"]);
    let err = finished.err();
    assert!(
        err.contains("app \"hog\"") && err.contains("memory was used up"),
        "{err}"
    );
}

#[test]
fn limits_of_the_pod_bound_all_of_its_apps() {
    import_busybox();
    let bandwidth =
        json!([{"name": "resource/block-bandwidth", "value": {"default": true, "limit": "1M"}}]);
    let waits = "cat /proc/sys/kernel/msgmax; nproc; cut -d' ' -f2- /sys/fs/cgroup/io.max; \
        trap 'exit 0' TERM; touch /s/ready; while :; do usleep 10000; done";
    // More than the pod's limit, and less than the machine has.
    let takes = "until [ -e /s/ready ]; do usleep 10000; done; exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    let shared = json!([{"name": "shared", "path": "/s"}]);
    let mut pod = manifest(&[
        (
            "waits",
            json!({"script": waits, "isolators": bandwidth, "mountPoints": shared}),
        ),
        ("takes", json!({"script": takes, "mountPoints": shared})),
    ]);
    pod["volumes"] = json!([{"name": "shared", "kind": "empty"}]);
    pod["isolators"] = json!([
        {"name": "resource/memory", "value": {"limit": "32Mi"}},
        {"name": "resource/cpu", "value": {"limit": "900m"}},
        {"name": "os/unix/sysctl", "value": {"kernel.msgmax": "4321"}},
        {"name": "example.com/other", "value": 1},
    ]);
    let finished = run_manifest(&pod).expect_code(137);
    let (out, err) = (finished.out(), finished.err());
    let limit = "rbps=1000000 wbps=1000000 riops=max wiops=max";
    assert_eq!(
        lines_of(&out, "waits"),
        ["4321", "1", limit, limit],
        "{err}"
    );
    assert!(
        err.contains("app \"takes\": the kernel killed a process because the memory was used up"),
        "{err}"
    );
    assert!(
        err.contains("isolator example.com/other of the pod is not supported"),
        "{err}"
    );
}

//! The stage 1 under rkt's own hand: everything that passes between the stages, as an unmodified rkt 1.30 passes it.
//!
//! Which test is about which row of the contract (contract page, sections 1 to 3):
//!
//! | row | test |
//! |---|---|
//! | 1.1 entrypoints by annotation, executed as files of the host | all here; a stage 1 that lacks some: `tests/second_stage1` |
//! | 1.2 arguments in order, networks, --private-users, --ipc, --mds-token, --disable-*, --hostname, --dns-conf-mode, --debug | `every_argument_of_rkt_…` |
//! | 1.2 `--mutable`; 1.7 crossing entrypoints, exit code 5 | `pod_of_rkt_takes_apps_…` |
//! | 1.2 unknown arguments, a network that cannot be | `run_that_cannot_be_as_rkt_says_…` |
//! | 1.2 working directory, environment, descriptors; 1.9 the lock, held by one | `run_of_rkt_gives_…`, `pod_of_rkt_is_entered_…` |
//! | 1.2 exit codes | `run_of_rkt_gives_…`; killed, not found, not executable: `tests/run`, `tests/ends` |
//! | 1.2 versions 1 to 6, as stage 0 speaks them; 1.6 what `stop` prints; 1.9 states | `cargo test -p stage0` |
//! | 1.3 `pid`, `subcgroup`, `rkt/status`, `supervisor-status`, all in the upper layer | `run_of_rkt_gives_…` |
//! | 1.3 `rkt-resolv.conf`, `rkt-hosts` | `every_argument_of_rkt_…`; the other modes: `tests/names` |
//! | 1.4 `enter` from the tree store; 1.6 `stop`, `--force` | `pod_of_rkt_is_entered_…`; an app it has not, a terminal: `tests/enter`, `tests/terminal` |
//! | 1.5 `gc`, again and after a crash | `run_of_rkt_gives_…`, `tests/crash` |
//! | 1.7 `attach` | `tests/attach` |
//! | 1.8 directories of apps, written through to their layers | `run_of_rkt_gives_…`, `tests/directories` |
//! | 3.1, 3.2 images | `tests/images`; event handlers: `tests/apps` |
//! | 3.3 lists that are null or missing, an app of the pod's own | all here; volumes and mount points: `tests/volumes`, `cargo test -p stage1` |
//! | 3.3 ports | `every_argument_of_rkt_…`; what contradicts: `cargo test -p stage0` |
//! | 3.4 isolators | `tests/apps`, `tests/limits`; the named sets: `cargo test -p stage1` |
//! | 3.5 what an app sees; who it is and how its program is found | `app_of_rkt_has_…`, `program_and_user_…` |

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;
use tests::leftovers::{PODS, expect_no_empty_cgroup_of_pods};
use tests::rkt::{NAME, Pod, Rkt};
use tests::running::Running;
use tests::{finish, proved, wait_until};

#[test]
fn run_of_rkt_gives_the_apps_code_and_reports_where_rkt_reads() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.pod(
        "11111111-2222-4333-8444-555555555555",
        "echo $AC_APP_NAME $FLAVOUR $CALLERS_OWN; hostname; id -u; echo bad >&2; echo kept >/written; exit 42",
    );
    let running = Running::start(&mut pod.run(&[]));
    pod.let_go_of_lock();
    let pid = running.pid();
    let finished = running.finish().expect_code(42);
    let hostname = format!("rkt-{}", pod.uuid);
    assert_eq!(finished.out(), format!("web aci\n{hostname}\n0\n"));
    assert!(finished.err().ends_with("bad\n"), "{}", finished.err());
    assert!(!pod.is_locked());
    // In the layer on disk, which is where rkt looks, and not through the mount.
    let report = pod.upper_of_stage1().join("rkt");
    assert_eq!(
        fs::read_to_string(report.join("status/web")).expect("a status"),
        "42\n"
    );
    let ready = fs::read_link(report.join("supervisor-status")).expect("a link");
    assert_eq!(ready, Path::new("ready"));
    assert_eq!(
        fs::read_to_string(pod.upper_of_app(NAME).join("written")).expect("a file"),
        "kept\n"
    );
    let file = pod.path("pid");
    assert_eq!(
        fs::read_to_string(&file).expect("the pid"),
        format!("{pid}\n")
    );
    let mode = fs::metadata(&file).expect("the pid").permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    let cgroup = fs::read_to_string(pod.path("subcgroup")).expect("the cgroup's name");
    assert_eq!(cgroup, format!("/fairing/{}\n", pod.uuid));
    let group = Path::new(PODS).join(pod.uuid);
    assert!(group.exists(), "it is there until gc");
    let gc = pod.garbage();
    // It may be called again, and says nothing on stdout: with the cgroup there, and as for a pod that was killed while that was
    // made.
    for left in [&*group, Path::new(PODS)] {
        fs::create_dir_all(left).expect("a cgroup");
        assert_eq!(finish(&mut gc()).expect_code(0).out(), "");
        assert!(!group.exists());
        expect_no_empty_cgroup_of_pods();
    }
}

#[test]
fn pod_of_rkt_is_entered_from_the_tree_store_and_stopped() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.pod(
        "66666666-2222-4333-8444-555555555555",
        "trap 'echo told; exit 7' TERM; echo up; while :; do usleep 10000; done",
    );
    // What the caller had open leaks through rkt, and is not for the pod's process to keep.
    let stray = File::open("/etc/passwd").expect("a file");
    fcntl(&stray, FcntlArg::F_SETFD(FdFlag::empty())).expect("it can be inherited");
    let mut running = Running::start(&mut pod.run(&["--hostname=box"]));
    pod.let_go_of_lock();
    assert_eq!(running.line(), "up");
    let open = Pod::descriptors(running.pid());
    assert!(open.contains(&pod.path("")), "the lock: {open:?}");
    assert!(!open.contains(&"/etc/passwd".into()), "{open:?}");
    assert!(pod.is_locked());
    let ready = pod.upper_of_stage1().join("rkt/supervisor-status");
    wait_until("the pod is ready", || ready.is_symlink());
    let script = proved("hostname; echo $CALLERS_OWN; kill -0 1 && exit 5");
    let mut enter = pod.enter(&["/bin/sh", "-c", &script]);
    let entered = finish(enter.env("CALLERS_OWN", "secret")).expect_code(5);
    assert_eq!(entered.out(), "box\n\n", "{}", entered.err());
    finish(&mut pod.enter(&["/no/such/program"])).expect_code(127);
    finish(&mut pod.stop(&[])).expect_code(0);
    assert_eq!(running.line(), "told");
    running.finish().expect_code(7);
    let refused = finish(&mut pod.stop(&[])).expect_code(254);
    assert!(
        refused.err().contains("does the pod still run"),
        "{}",
        refused.err()
    );
    let refused = finish(&mut pod.stop(&["--force"])).expect_code(254);
    assert!(refused.err().contains("pod's process"), "{}", refused.err());
    finish(&mut pod.garbage()()).expect_code(0);
}

#[test]
fn pod_of_rkt_takes_apps_while_it_runs_and_gives_their_roots_back() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.empty("77777777-2222-4333-8444-555555555555", true);
    let arguments = [
        "--mutable",
        "--net=default-restricted",
        "--mds-token=0123456789abcdef0123456789abcdef",
    ];
    let running = Running::start(&mut pod.run(&arguments));
    pod.let_go_of_lock();
    let report = pod.upper_of_stage1().join("rkt");
    wait_until("the pod is ready", || {
        report.join("supervisor-status").is_symlink()
    });
    let status = |name: &str| fs::read_to_string(report.join("status").join(name)).ok();
    let does = |entrypoint: &str, name: &str| {
        finish(&mut pod.cross(entrypoint, name)).expect_code(0);
    };
    pod.place(
        "one",
        "echo $AC_APP_NAME $FLAVOUR $AC_METADATA_URL >>/written; exit 3",
    );
    pod.place(
        "two",
        "trap 'exit 7' TERM; touch /up; while :; do usleep 10000; done",
    );
    for name in ["one", "two"] {
        does("app/add", name);
        assert_eq!(status(name), None);
    }
    let written = pod.upper_of_app("one").join("written");
    for lives in 1..=2 {
        // As rkt does before it starts one, through the mount.
        let _ = fs::remove_file(pod.path("stage1/rootfs/rkt/status/one"));
        does("app/start", "one");
        wait_until("the app has ended", || status("one").is_some());
        assert_eq!(status("one").as_deref(), Some("3\n"));
        let text = fs::read_to_string(&written).expect("the app's file");
        let of_service = "http://172.31.0.1:18112/0123456789abcdef0123456789abcdef";
        assert_eq!(text, format!("one aci {of_service}\n").repeat(lives));
    }
    finish(&mut pod.cross("app/stop", "one")).expect_code(5);
    does("app/start", "two");
    let up = pod.upper_of_app("two").join("up");
    wait_until("the app waits", || up.exists());
    finish(&mut pod.cross("app/rm", "two")).expect_code(254);
    does("app/stop", "two");
    assert_eq!(status("two").as_deref(), Some("7\n"));
    for name in ["one", "two"] {
        does("app/rm", name);
        // Neither is mounted in the process's own namespace any more.
        let root = format!("stage1/rootfs/opt/stage2/{name}/rootfs");
        let own = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid()));
        assert!(!own.expect("its mounts").contains(&format!("upper/{name}")));
        finish(Command::new("umount").arg(pod.path(&root))).expect_code(0);
    }
    finish(&mut pod.stop(&[])).expect_code(0);
    running.finish().expect_code(0);
    finish(&mut pod.garbage()()).expect_code(0);
}

/// Everything that rkt may say, in its order (1.2), and what an app has of it.
#[test]
fn every_argument_of_rkt_is_taken_and_what_a_machine_cannot_have_is_told() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.pod_of(
        "88888888-2222-4333-8444-555555555555",
        &json!({
            "exec": ["/bin/sh", "-c", proved(
                "hostname; cat /etc/resolv.conf; grep -c '^192.0.2.9 other$' /etc/hosts; grep -c '^127.0.0.1 box$' /etc/hosts; \
                 echo $AC_METADATA_URL; wget -qO - $AC_METADATA_URL; ls /sys/class/net; ip -4 -o address show dev eth0 | grep -c ' 10.1.2.3/24 '; ls /sys/module | grep -q . && echo shown; \
                 grep CapBnd /proc/self/status | grep -c ffffffff; exit 3")],
            "ports": [{"name": "http", "protocol": "tcp", "port": 80, "socketActivated": true}],
        }),
    );
    pod.change_manifest(|manifest| manifest["ports"] = json!([{"name": "http", "hostPort": 8080}]));
    fs::create_dir_all(pod.path("stage1/rootfs/etc")).expect("a folder of stage 1");
    pod.write(
        "stage1/rootfs/etc/rkt-resolv.conf",
        "nameserver 192.0.2.1\n",
    );
    pod.write("stage1/rootfs/etc/rkt-hosts", "192.0.2.9 other\n");
    let network = json!({"cniVersion": "1.0.0", "name": "storage", "plugins": [
        {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    fs::create_dir_all(pod.path("etc/net.d")).expect("a local configuration");
    pod.write("etc/net.d/10-storage.conflist", &network.to_string());
    let local_config = format!("--local-config={}", pod.path("etc").display());
    let uuid = pod.uuid;
    let arguments = [
        "--debug",
        "--net=storage:IP=10.1.2.3,default-restricted",
        "--interactive",
        "--private-users=611778560:65536",
        "--mds-token=0123456789abcdef0123456789abcdef",
        &*local_config,
        "--hostname=box",
        "--dns-conf-mode=resolv=stage0,hosts=stage0",
        "--disable-capabilities-restriction",
        "--disable-paths",
        "--disable-seccomp",
        "--ipc=parent",
        uuid,
    ];
    let mut service = Command::new("socat");
    let answer = "#!/bin/sh\nwhile read -r line && [ ${#line} -gt 1 ]; do :; done\n\
        printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'; echo metadata\n";
    pod.write("answer", answer);
    let path = pod.path("answer");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    let answer = format!("EXEC:{}", path.display());
    service.args(["-d", "-d", "TCP4-LISTEN:18112,reuseaddr", &answer]);
    let service = Running::start(&mut service);
    let running = Running::start(&mut pod.execute(&arguments));
    pod.let_go_of_lock();
    let finished = running.finish().expect_code(3);
    service.finish();
    assert_eq!(
        finished.out(),
        "box\nnameserver 192.0.2.1\n1\n1\nhttp://10.1.2.1:18112/0123456789abcdef0123456789abcdef\nmetadata\n\
         eth0\neth1\nlo\n1\nshown\n1\n",
        "{}",
        finished.err()
    );
    for told in [
        "port \"http\" of app web is socket-activated",
        "--private-users is ignored",
        "--ipc=parent is ignored",
    ] {
        assert!(finished.err().contains(told), "{told}: {}", finished.err());
    }
    // What rkt reads of a pod's addresses, and what is taken down.
    let info = fs::read(pod.path("net-info.json")).expect("net-info.json");
    let info: serde_json::Value = serde_json::from_slice(&info).expect("JSON");
    let [name, ip, mask] = ["netName", "ip", "mask"].map(|key| info[0][key].clone());
    assert_eq!([name, ip, mask], ["storage", "10.1.2.3", "255.255.255.0"]);
    assert!(pod.path("net/0.json").exists());
    let gc = pod.garbage();
    let records = || gc().get_current_dir().expect("a pod").join("net").exists();
    assert!(records());
    finish(&mut gc()).expect_code(0);
    assert!(!records());
    finish(&mut gc()).expect_code(0);
}

#[test]
fn run_that_cannot_be_as_rkt_says_is_refused_with_254_and_the_reason() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.pod("99999999-2222-4333-8444-555555555555", "echo ran");
    let uuid = pod.uuid;
    for (arguments, reason) in [
        (
            &["--net=host,storage", uuid][..],
            "host goes with no other network",
        ),
        (&["--net=none", "--quick", uuid], "--quick"),
        (&["--net", uuid], "needs a value"),
        (&["--net=none"], "no pod UUID"),
        (
            &["--net=none", "--dns-conf-mode=resolv=mine", uuid],
            "resolv=mine",
        ),
        (
            &["--net=none", "--dns-conf-mode=hosts=stage0", uuid],
            "rkt-hosts",
        ),
    ] {
        let running = Running::start(&mut pod.execute(arguments));
        pod.let_go_of_lock();
        let refused = running.finish().expect_code(254);
        assert!(
            refused.err().contains(reason),
            "{reason}: {}",
            refused.err()
        );
        assert_eq!(refused.out(), "");
        assert!(!pod.is_locked());
    }
}

/// What the specification and rkt put before every app (3.5).
#[test]
fn app_of_rkt_has_the_surroundings_that_the_contract_promises() {
    const SCRIPT: &str = "tr '\\0' '\\n' </proc/$$/environ | sort; \
        for d in null zero full random urandom tty console net/tun ptmx; do [ -c /dev/$d ] || echo no $d; done; \
        [ -d /dev/pts -a -d /dev/shm ] || echo no pts; stat -c %a /tmp; cat /etc/hostname; \
        grep -c ' rkt-aaaaaaaa-' /etc/hosts; ls -d /etc/resolv.conf; \
        for f in config.gz kallsyms sched_debug kcore; do head -c1 /proc/$f 2>/dev/null | wc -c; done | sort -u; \
        ls /sys/firmware /sys/module /sys/power 2>/dev/null | grep -v : | grep -c .; \
        ls /proc/sys/kernel/core_pattern /sys/block/vda/queue/read_ahead_kb >/dev/null; \
        for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
            /proc/sys/vm/panic_on_oom /sys/block/vda/queue/read_ahead_kb; do (echo 0 >$f) 2>/dev/null && echo wrote $f; done; \
        grep CapBnd /proc/self/status | cut -f2; grep NoNewPrivs /proc/self/status | cut -f2; ls /sys/class/net";
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.pod("aaaaaaaa-2222-4333-8444-555555555555", SCRIPT);
    let uuid = pod.uuid;
    let running = Running::start(&mut pod.execute(&["--net=none", uuid]));
    pod.let_go_of_lock();
    let finished = running.finish().expect_code(0);
    let expected = format!(
        "AC_APP_NAME=web\nFLAVOUR=aci\nHOME=/root\nLOGNAME=root\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nSHELL=/bin/sh\nUSER=root\ncontainer=fairing\n\
         1777\nrkt-{uuid}\n1\n/etc/resolv.conf\n0\n0\n00000000a80425fb\n0\nlo\n"
    );
    assert_eq!(finished.out(), expected);
    assert_eq!(finished.err(), "");
}

/// How a program and its user are found in the image (3.5).
#[test]
fn program_and_user_of_an_app_are_found_by_the_rules_of_rkt() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.empty("bbbbbbbb-2222-4333-8444-555555555555", false);
    let apps = [
        (
            "bare",
            json!({"exec": ["tool"], "workingDirectory": "/srv"}),
            "0 0 0 /srv",
        ),
        (
            "relative",
            json!({"exec": ["sub/tool"], "workingDirectory": "/srv", "user": "worker", "group": "worker"}),
            "1000 1000 1000 2000 /srv",
        ),
        (
            "linked",
            json!({"exec": ["/srv/link"], "user": "/srv/owned", "group": "/srv/owned"}),
            "77 88 88 /",
        ),
        (
            "path",
            json!({"exec": ["tool"], "user": "1234", "group": "extra", "supplementaryGIDs": [5, 6],
                "environment": [{"name": "PATH", "value": "/srv/sub:/bin"}]}),
            "1234 2000 2000 5 6 /",
        ),
    ];
    let tool = format!(
        "#!/bin/sh\n{}\n",
        proved("echo $(id -u) $(id -g) $(id -G) $(pwd)")
    );
    for (name, app, _) in &apps {
        pod.place_app(name, app);
        let srv = pod.path(&format!("stage1/rootfs/opt/stage2/{name}/rootfs/srv"));
        fs::create_dir_all(srv.join("sub")).expect("a folder of the image");
        for tool_at in ["tool", "sub/tool"] {
            fs::write(srv.join(tool_at), &tool).expect("a program");
            fs::set_permissions(srv.join(tool_at), Permissions::from_mode(0o755))
                .expect("its mode");
        }
        symlink("/srv/tool", srv.join("link")).expect("a link");
        fs::write(srv.join("owned"), "").expect("a file");
        chown(srv.join("owned"), Some(77), Some(88)).expect("its owner");
    }
    let running = Running::start(&mut pod.run(&[]));
    pod.let_go_of_lock();
    let finished = running.finish().expect_code(0);
    let out = finished.out();
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let mut expected = apps.map(|(name, _, facts)| format!("{name}: {facts}"));
    expected.sort_unstable();
    assert_eq!(lines, expected, "{}", finished.err());
}

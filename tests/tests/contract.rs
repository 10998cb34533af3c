//! The stage 1 under rkt's own hand: everything that passes between the stages, as an unmodified rkt 1.30 passes it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tests::leftovers::{PODS, expect_no_empty_cgroup_of_pods};
use tests::rkt::{NAME, Rkt};
use tests::running::Running;
use tests::{finish, proved, wait_until};

#[test]
fn run_of_rkt_gives_the_apps_code_and_reports_where_rkt_reads() {
    let rkt = Rkt::with_our_stage1();
    let mut pod = rkt.pod(
        "11111111-2222-4333-8444-555555555555",
        "echo $AC_APP_NAME $FLAVOUR $CALLERS_OWN; hostname; id -u; echo bad >&2; echo kept >/written; exit 42",
    );
    // What the caller had open leaks through rkt.
    let stray = File::open("/etc/passwd").expect("a file");
    fcntl(&stray, FcntlArg::F_SETFD(FdFlag::empty())).expect("it can be inherited");
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
    let mut running = Running::start(&mut pod.run(&["--hostname=box"]));
    pod.let_go_of_lock();
    assert_eq!(running.line(), "up");
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
    let mut pod = rkt.sandbox("77777777-2222-4333-8444-555555555555");
    let running = Running::start(&mut pod.run(&["--mutable"]));
    pod.let_go_of_lock();
    let report = pod.upper_of_stage1().join("rkt");
    wait_until("the pod is ready", || {
        report.join("supervisor-status").is_symlink()
    });
    let status = |name: &str| fs::read_to_string(report.join("status").join(name)).ok();
    let does = |entrypoint: &str, name: &str| {
        finish(&mut pod.cross(entrypoint, name)).expect_code(0);
    };
    pod.place("one", "echo $AC_APP_NAME $FLAVOUR >>/written; exit 3");
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
        assert_eq!(text, "one aci\n".repeat(lives));
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

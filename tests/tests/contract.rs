//! The stage 1 under rkt's own hand: everything that passes between the stages, as an unmodified rkt 1.30 passes it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tests::leftovers::{PODS, expect_no_empty_cgroup_of_pods};
use tests::rkt::Rkt;
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
        fs::read_to_string(pod.upper_of_app().join("written")).expect("a file"),
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

//! Pods that an earlier version of fairing started, in the hands of this one (`scripts/previous`; in the long run).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::{fairing_in, finish, proved, rounds, temporary, test_image};

/// The earlier `fairing`, which finds its own stage 1 beside itself.
fn previous(store: &Path) -> Command {
    let folder = std::env::var_os("FAIRING_TEST_PREVIOUS")
        .expect("FAIRING_TEST_PREVIOUS: run scripts/system-tests with FAIRING_LONG=1");
    let mut command = Command::new(PathBuf::from(folder).join("bin/fairing"));
    command.arg("--dir").arg(store).stdin(Stdio::null());
    command
}

#[test]
fn pod_of_an_earlier_version_is_listed_entered_stopped_and_collected() {
    for _ in 0..rounds("pods of an earlier version", 0, 1) {
        let folder = temporary("fairing-previous-");
        let store = folder.path();
        let start = |script: &str| {
            let mut run = previous(store);
            run.args(["run", "-d"]).arg(test_image("busybox"));
            run.args(["--exec=/bin/sh", "--", "-c", &proved(script)]);
            let uuid = finish(&mut run).expect_code(0).out();
            uuid.trim().to_owned()
        };
        let does = |words: &[&str]| finish(fairing_in(store).args(words));
        let living = start("trap 'exit 7' TERM; echo up; while :; do usleep 10000; done");
        let ended = start("echo over; exit 3");
        assert_eq!(does(&["wait", &ended]).expect_code(0).out(), "3\n");
        let list = does(&["list", "--full", "--no-legend"])
            .expect_code(0)
            .out();
        let state = |uuid: &str| list.lines().find(|line| line.starts_with(uuid));
        assert!(
            state(&living).is_some_and(|line| line.contains("running")),
            "{list}"
        );
        assert!(
            state(&ended).is_some_and(|line| line.contains("exited")),
            "{list}"
        );
        let status = does(&["status", &living]).expect_code(0);
        assert_eq!(status.value("state"), "running");
        assert_ne!(status.value("jail-uid"), "0");
        let script = proved("echo in; exit 5");
        let entered = does(&["enter", &living, "/bin/sh", "-c", &script]).expect_code(5);
        assert_eq!(entered.out(), "in\n");
        assert_eq!(does(&["logs", &living]).expect_code(0).out(), "up\n");
        does(&["stop", &living]).expect_code(0);
        assert_eq!(does(&["wait", &living]).expect_code(0).out(), "7\n");
        does(&["rm", &living]).expect_code(0);
        does(&["gc", "--grace-period=0s"]).expect_code(0);
        assert_eq!(does(&["list", "--no-legend"]).expect_code(0).out(), "");
        // The images that it imported are this one's, too.
        let images =
            does(&["image", "list", "--fields=id", "--no-legend", "--full"]).expect_code(0);
        let mut run = fairing_in(store);
        run.args([
            "run",
            "--rm",
            images.out().trim(),
            "--exec=/bin/sh",
            "--",
            "-c",
        ]);
        finish(run.arg(proved("exit 4"))).expect_code(4);
    }
}

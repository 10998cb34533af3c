//! Pods whose apps come and go while they run.

use std::fs;
use std::path::{Path, PathBuf};

use tests::leftovers::Leftovers;
use tests::mounted::Mounted;
use tests::{Finished, fairing, finish, proved, store, temporary, test_image};

/// A pod that runs in the background and has no app of its own.
struct Sandbox {
    uuid: String,
}

impl Sandbox {
    #[track_caller]
    fn start(options: &[&str]) -> Self {
        let mut command = fairing();
        command.args(["app", "sandbox", "-d"]).args(options);
        let uuid = finish(&mut command).expect_code(0).out();
        Self {
            uuid: uuid.trim().to_owned(),
        }
    }

    /// `fairing app DEED UUID ARGUMENTS`.
    fn app(&self, deed: &str, arguments: &[&str]) -> Finished {
        let mut command = fairing();
        command.args(["app", deed, &self.uuid]).args(arguments);
        finish(&mut command)
    }

    /// Adds an app of busybox whose shell does this, once it has proved that it runs in a machine.
    fn add(&self, name: &str, flags: &[&str], script: &str) -> Finished {
        self.add_of("busybox", name, flags, script)
    }

    fn add_of(&self, image: &str, name: &str, flags: &[&str], script: &str) -> Finished {
        let mut command = fairing();
        command.args(["app", "add", &self.uuid]);
        command.arg(test_image(image)).arg(format!("--name={name}"));
        command.args(flags).arg("--exec=/bin/sh");
        finish(command.args(["--", "-c", &proved(script)]))
    }

    #[track_caller]
    fn does(&self, deed: &str, name: &str) {
        self.app(deed, &[&format!("--app={name}")]).expect_code(0);
    }

    #[track_caller]
    fn is_refused(&self, deed: &str, name: &str, why: &str) {
        let refused = self.app(deed, &[&format!("--app={name}")]).expect_code(254);
        assert!(refused.err().contains(why), "{}", refused.err());
    }

    /// Starts an app that was added and ends by itself, and gives what it has written since it was added.
    #[track_caller]
    fn runs(&self, name: &str) -> String {
        self.does("start", name);
        self.wait_for(name, "exited");
        self.logs(name)
    }

    fn state(&self, name: &str) -> String {
        let list = self.app("list", &["--no-legend"]).expect_code(0).out();
        let words = list.lines().map(|line| line.split_whitespace());
        let mut states =
            words.filter_map(|mut words| (words.next()? == name).then(|| words.next()));
        states.next().flatten().unwrap_or("none").to_owned()
    }

    fn wait_for(&self, name: &str, state: &str) {
        tests::wait_until(state, || self.state(name) == state);
    }

    fn logs(&self, name: &str) -> String {
        let mut command = fairing();
        finish(command.args(["logs", "--app", name, &self.uuid]))
            .expect_code(0)
            .out()
    }

    fn directory(&self) -> PathBuf {
        store().join("pods/run").join(&self.uuid)
    }

    /// What is mounted in the root of the pod's process.
    fn shares(&self) -> Vec<String> {
        let pid = fs::read_to_string(self.directory().join("pid")).expect("the pid");
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", pid.trim()));
        let table = table.expect("the process's mounts");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points
            .filter(|point| *point != "/")
            .map(str::to_owned)
            .collect()
    }

    #[track_caller]
    fn end(self) {
        for command in ["stop", "rm"] {
            finish(fairing().args([command, &self.uuid])).expect_code(0);
        }
    }
}

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
    let waits =
        |trap: &str| format!("trap '{trap}' TERM; touch /s/up; while :; do usleep 10000; done");
    let shared = "-v=/tmp:/s";
    pod.add("heeds", &[shared], &waits("echo told; exit 7"))
        .expect_code(0);
    pod.add("deaf", &[shared], &waits("")).expect_code(0);
    for (name, code) in [("heeds", "7"), ("deaf", "137")] {
        let up = Path::new("/tmp/up");
        let _ = fs::remove_file(up);
        pod.is_refused("stop", name, "not running");
        pod.does("start", name);
        pod.is_refused("start", name, "runs already");
        tests::wait_until("the app waits", || up.exists());
        let enter = format!("--app={name}");
        let mut entered = fairing();
        entered.args(["app", "exec", &enter, &pod.uuid, "/bin/sh", "-c"]);
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
    refused(&["-t"], &["input"]);
    refused(&["-v=/no/such/folder:/x"], &["/no/such/folder"]);
    refused(&["--name=one"], &["already"]);
    pod.add("two", &["--memory=156Mi"], "exit 0").expect_code(0);
    // It is added whatever its image has, and starting it says why that cannot be.
    let mut add = fairing();
    add.args(["app", "add", &pod.uuid])
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

#[test]
fn folders_are_given_to_a_running_pod_and_taken_back_with_the_last_app_that_has_them() {
    let folder = temporary("fairing-given-");
    let disk = Mounted::new(
        "tmpfs",
        "size=8m",
        Path::new("tmpfs"),
        folder.path().join("disk"),
    );
    fs::write(disk.path().join("word"), "given\n").expect("room");
    let file = folder.path().join("file");
    fs::write(&file, "alone\n").expect("room");
    let pod = Sandbox::start(&[]);
    assert!(pod.shares().is_empty());
    let (whole, barred, single) = (
        format!("-v={}:/s", disk.path().display()),
        format!("-v={}:/s:ro", disk.path().display()),
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
    // Nothing holds it any more: else it could not be unmounted.
    drop(disk);
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
    let rounds = tests::rounds("apps added, started and removed", 5, 200);
    for _ in 0..rounds {
        pod.add("one", &["-v=/tmp:/s"], "echo up").expect_code(0);
        assert_eq!(pod.runs("one"), "up\n");
        pod.does("rm", "one");
    }
    pod.add("two", &[], "while :; do usleep 10000; done")
        .expect_code(0);
    pod.does("start", "two");
    let pid = fs::read_to_string(pod.directory().join("pid")).expect("the pid");
    let threads = fs::read_dir(format!("/proc/{}/task", pid.trim()))
        .expect("threads")
        .count();
    assert!(threads < 24, "{threads} threads");
    // Its end is the pod's, not its app's.
    finish(fairing().args(["stop", &pod.uuid])).expect_code(0);
    let status = finish(fairing().args(["status", &pod.uuid])).expect_code(0);
    assert_eq!(status.value("exited"), "true");
    assert_eq!(
        finish(fairing().args(["wait", &pod.uuid]))
            .expect_code(0)
            .out(),
        "0\n"
    );
    finish(fairing().args(["rm", &pod.uuid])).expect_code(0);
    assert_eq!(Leftovers::now().since(&before), [""; 0]);
}

//! `fairing export` and `fairing cp`: the files of pods that run and of pods that have ended.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::mounted::Mounted;
use tests::pod::Pod;
use tests::running::Running;
use tests::{
    fairing, fairing_in, finish, finish_with, proved, run_image, run_sh, store, succeed, temporary,
    test_image, wait_until,
};

/// What the app of a pod that runs does.
const WAITS: &str = "trap 'exit 3' TERM; echo ready; while :; do usleep 10000; done";

/// A pod that ran `script` and has ended; gives its UUID.
#[track_caller]
fn ended(folder: &Path, options: &[&str], script: &str) -> String {
    let file = folder.join("uuid");
    let save = format!("--uuid-file-save={}", file.display());
    let options: Vec<_> = [&*save].iter().chain(options).copied().collect();
    succeed(&mut run_sh(&options, script));
    let uuid = fs::read_to_string(file).expect("a UUID");
    uuid.trim().to_owned()
}

fn export(uuid: &str, out: &Path) -> Command {
    let mut export = fairing();
    export.args(["export", uuid]).arg(out);
    export
}

fn cp(from: &str, to: &str) -> Command {
    let mut cp = fairing();
    cp.args(["cp", from, to]);
    cp
}

/// The UUIDs of all pods.
#[track_caller]
fn pods() -> String {
    let mut list = fairing();
    let listed = succeed(list.args(["list", "--full", "--no-legend"]));
    let listed = listed.out();
    let uuids = listed.lines().filter_map(|line| line.split(' ').next());
    uuids.collect::<Vec<_>>().join("\n")
}

/// What the app leaves: a file made, changed, removed, owned, linked.
const LEAVES: &str = "cd /root; echo new > new; ln new twin; chown 5:6 new; chmod 4711 new; ln -s /etc/passwd link; \
    mkfifo pipe; rm /bin/vi; echo changed > /etc/group; mkdir -p deep/er; echo in > deep/er/file; chmod 555 deep";

#[test]
fn app_that_is_exported_runs_again_with_the_files_that_it_left() {
    let folder = temporary("fairing-export-");
    let out = folder.path().join("app.aci");
    let uuid = ended(folder.path(), &["--name=web"], LEAVES);
    let before = pods();

    // One that is killed leaves its machine to the next command, and the pod as it was.
    let run = store().join("pods/run");
    let running = || fs::read_dir(&run).expect("the pods").count();
    let others = running();
    let exporting = Running::start(&mut export(&uuid, &out));
    wait_until("the machine that reads is there", || running() > others);
    exporting.signal("KILL");
    exporting.finish().expect_code(137);
    wait_until("the next commands have removed it", || {
        pods();
        running() == others
    });

    succeed(&mut export(&uuid, &out));
    assert_eq!(pods(), before, "the pod that read the files is gone");
    let refused = finish(&mut export(&uuid, &out)).expect_code(254);
    assert!(refused.err().contains("--overwrite"), "{}", refused.err());
    let there = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(there, 2, "the image and the UUID, and no part of either");

    let facts = "cd /root; cat twin /etc/group deep/er/file; stat -c '%u:%g %a %h' new; readlink link; test -p pipe; echo $?; \
        test -e /bin/vi; echo $?";
    let ran = succeed(&mut run_image(&out, &["--rm"], facts));
    let left = "new\nchanged\nin\n5:6 4711 2\n/etc/passwd\n0\n1\n";
    assert_eq!(ran.out(), left);

    // What has ended still gives single files, and takes none.
    succeed(&mut cp(&format!("{uuid}:/root/deep"), &text(folder.path())));
    let copied = fs::read_to_string(folder.path().join("deep/er/file"));
    assert_eq!(copied.expect("a copy"), "in\n");
    let refused = finish(&mut cp(&text(&out), &format!("{uuid}:/root"))).expect_code(254);
    assert!(refused.err().contains("is exited"), "{}", refused.err());
    succeed(fairing().args(["rm", &uuid]));
}

#[test]
fn app_whose_root_was_a_folder_of_the_host_is_exported() {
    let folder = temporary("fairing-export-");
    // An overlay needs a file system that can hold one.
    let host = Mounted::ext4(folder.path(), "host");
    let (out, file) = (folder.path().join("app.aci"), folder.path().join("uuid"));
    let fairing = || fairing_in(&host.path().join("data"));
    let mut run = fairing();
    run.args(["run", "--rootfs=shared"])
        .arg(format!("--uuid-file-save={}", file.display()))
        .arg(test_image("busybox"))
        .args(["--exec=/bin/sh", "--", "-c", &proved(LEAVES)]);
    succeed(&mut run);
    let uuid = fs::read_to_string(file).expect("a UUID");
    let uuid = uuid.trim();
    succeed(fairing().args(["export", uuid]).arg(&out));
    let facts =
        "cd /root; cat twin /etc/group; stat -c '%u:%g %a %h' new; test -e /bin/vi; echo $?";
    let ran = succeed(&mut run_image(&out, &["--rm"], facts));
    assert_eq!(ran.out(), "new\nchanged\n5:6 4711 2\n1\n");
    // A link leads to what the app saw there, not to the host's.
    let from = format!("{uuid}:/root/link");
    succeed(fairing().args(["cp", &from]).arg(folder.path()));
    let copied = fs::read_to_string(folder.path().join("link")).expect("a copy");
    let hosts = fs::read_to_string("/etc/passwd").expect("the host's");
    assert_ne!(copied, hosts);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(uuid), "{mounts}");
}

#[test]
fn files_of_a_pod_that_runs_are_copied_both_ways() {
    let pod = Pod::start(&[], WAITS);
    let in_pod = |path: &str| format!("{}:{path}", pod.uuid());
    let folder = temporary("fairing-cp-");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("site/sub")).expect("a folder");
    fs::write(path("site/sub/page"), vec![b'x'; 3 << 20]).expect("a file");
    fs::hard_link(path("site/sub/page"), path("site/twin")).expect("a link");
    symlink("sub/page", path("site/link")).expect("a link");

    // To a new name, into a folder that is there, and the content alone.
    succeed(&mut cp(&text(&path("site")), &in_pod("/srv")));
    succeed(&mut cp(&text(&path("site")), &in_pod("/tmp")));
    succeed(&mut cp(
        &format!("{}/.", text(&path("site"))),
        &in_pod("tmp"),
    ));
    let facts = "cd /srv; stat -c '%n %s %h %u' sub/page; readlink link; cmp /srv/twin /tmp/site/sub/page && cmp /srv/link /tmp/link; \
        echo $?; ln -s /srv /tmp/way; ln -s /etc/passwd /srv/out; mkdir /by; stat -c %a /tmp; chmod 4755 /srv/twin; mkfifo /srv/pipe";
    let seen = succeed(&mut pod.enter(facts));
    assert_eq!(seen.out(), "sub/page 3145728 2 0\nsub/page\n0\n1777\n");

    // Out again, by a link that is the app's.
    let copied = succeed(&mut cp(&in_pod("/tmp/way"), &text(&path("back"))));
    assert!(
        copied.err().contains("1 devices and pipes"),
        "{}",
        copied.err()
    );
    assert_eq!(
        fs::read_link(path("back/out")).expect("a link"),
        Path::new("/etc/passwd")
    );
    let twin = fs::metadata(path("back/twin")).expect("a copy");
    assert_eq!(
        (twin.len(), twin.nlink(), twin.mode() & 0o7777),
        (3 << 20, 2, 0o755)
    );

    // By a tar, both ways.
    let tar = succeed(&mut cp(&in_pod("/srv/sub"), "-")).stdout;
    assert!(tar.len() > 3 << 20);
    finish_with(&mut cp("-", &in_pod("/by")), Some(tar)).expect_code(0);
    succeed(&mut pod.enter("cmp /by/sub/page /srv/twin"));

    // What cannot be, and what it is.
    for (from, to, why) in [
        (in_pod("/no/such"), text(folder.path()), "/no/such"),
        (text(&path("site")), in_pod("/no/such"), "/no/such"),
        (text(&path("site")), in_pod("/etc/passwd"), "/etc/passwd"),
        (text(&path("no")), in_pod("/tmp"), "does not exist"),
        (in_pod("/srv"), text(&path("no/such")), "no folder"),
        ("a".to_owned(), "b".to_owned(), "POD:PATH"),
    ] {
        let refused = finish(&mut cp(&from, &to)).expect_code(254);
        assert!(refused.err().contains(why), "{why}: {}", refused.err());
    }
    let refused = finish(&mut export(pod.uuid(), &path("x.aci"))).expect_code(254);
    assert!(refused.err().contains("fairing stop"), "{}", refused.err());
    // No program of the image's does any of it.
    succeed(&mut pod.enter("rm -r /bin"));
    succeed(&mut cp(&in_pod("/srv/sub/page"), &text(&path("last"))));
    pod.end().expect_code(3);
}

#[test]
fn processes_of_a_pod_are_listed_with_their_apps() {
    let folder = temporary("fairing-top-");
    let file = folder.path().join("uuid");
    let mut run = fairing();
    run.arg("run")
        .arg(format!("--uuid-file-save={}", file.display()))
        .arg("--rm");
    for (name, script) in [
        (
            "one",
            "sleep 4321 & echo ready; exec sh -c 'sleep 1111; :' \"$(printf 'a\\033[2Jb')\"",
        ),
        ("two", "echo ready; exec sleep 2222"),
    ] {
        run.arg(test_image("busybox")).arg(format!("--name={name}"));
        run.args([
            "--exec=/bin/sh",
            "--user=7",
            "--",
            "-c",
            &proved(script),
            "---",
        ]);
    }
    let mut pod = Running::start(run.stdin(Stdio::null()));
    let mut said = [pod.line(), pod.line()];
    said.sort();
    assert_eq!(said, ["one: ready", "two: ready"]);
    let uuid = fs::read_to_string(&file).expect("a UUID");
    let top = |options: &[&str]| {
        let mut top = fairing();
        succeed(top.arg("top").args(options).arg(uuid.trim())).out()
    };
    wait_until("every process has become its program", || {
        let all = top(&[]);
        ["sleep 4321", "1111", "sleep 2222"]
            .iter()
            .all(|word| all.contains(word))
    });
    let (all, of_two) = (top(&[]), top(&["--app=two", "--no-legend"]));
    assert!(all.starts_with("USER") && all.contains("\\u{1b}[2J") && !all.contains('\u{1b}'));
    let of_two: Vec<_> = of_two.split_whitespace().collect();
    assert_eq!((of_two.len(), of_two[0]), (9, "7"), "{of_two:?}");
    assert!(of_two.ends_with(&["sleep", "2222"]), "{of_two:?}");
    let json = top(&["--format=json"]);
    let processes: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(processes.as_array().map(Vec::len), Some(4), "{json}");
    assert!(
        processes[0]["memory_bytes"].as_u64() > Some(1 << 12),
        "{json}"
    );
    succeed(fairing().args(["stop", uuid.trim()]));
    pod.finish().expect_code(143);
    finish(fairing().args(["top", uuid.trim()])).expect_code(254);
}

fn text(path: &Path) -> String {
    path.to_str().expect("a name of ours").to_owned()
}

//! The built `fairing` with a stage 1 of a few lines of shell: what passes between the stages, and what dead ones leave.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use crate::recorder::{Host, LIVING, RECORD, until};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The lines of a record.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a record");
    text.lines().map(str::to_owned).collect()
}

fn pid(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

#[test]
fn stage1_is_executed_as_the_contract_says() {
    let host = Host::new(RECORD);
    // A stray descriptor of the caller, which must not reach stage 1.
    let stray = File::open("/etc/passwd").expect("a file");
    fcntl(&stray, FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
    let status = host
        .pod(
            "run",
            &["--debug", "--net=none", "--hostname=box", "--inherit-env"],
        )
        .env("CALLERS", "own")
        .status()
        .expect("fairing starts");
    assert_eq!(status.code(), Some(42));
    let [uuid] = &host.pods("run")[..] else {
        panic!("not one pod");
    };
    let pod = fs::canonicalize(host.path("data/pods/run").join(uuid)).expect("the pod");
    let record = lines(&host.path("record"));
    let has = |line: &str| assert!(record.iter().any(|l| l == line), "{line}: {record:?}");
    has(&format!("argv0={}/stage1/rootfs/run", pod.display()));
    has(&format!("cwd={}", pod.display()));
    has("CALLERS=own");
    has("RKT_SELINUX_CONTEXT=");
    has("RKT_SELINUX_MOUNT_CONTEXT=");
    let arguments: Vec<_> = record
        .iter()
        .filter_map(|l| l.strip_prefix("arg="))
        .collect();
    let expected = [
        "--debug",
        "--net=none",
        "--local-config=/etc/fairing",
        "--hostname=box",
        uuid,
    ];
    assert_eq!(arguments, expected);
    let lock = record.iter().find_map(|l| l.strip_prefix("RKT_LOCK_FD="));
    has(&format!("fd{}={}", lock.expect("a lock"), pod.display()));
    assert!(
        !record.iter().any(|line| line.ends_with("/etc/passwd")),
        "{record:?}"
    );
}

#[test]
fn names_reach_stage1_and_what_is_ignored_is_told() {
    let host = Host::new(RECORD);
    let flags = [
        "--dns=192.0.2.1",
        "--dns-search=example",
        "--hosts-entry=192.0.2.2=box",
        "--mds-register",
        "--private-users",
    ];
    let output = host.pod("run", &flags).output().expect("fairing starts");
    assert_eq!(output.status.code(), Some(42));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for flag in ["--mds-register is ignored", "--private-users is ignored"] {
        assert_eq!(told.matches(flag).count(), 1, "{told}");
    }
    let mode = "arg=--dns-conf-mode=resolv=stage0,hosts=stage0";
    assert!(lines(&host.path("record")).contains(&mode.to_owned()));
    let pod = host.path("data/pods/run").join(&host.pods("run")[0]);
    let file = |name| fs::read_to_string(pod.join("stage1/rootfs/etc").join(name));
    assert_eq!(
        file("rkt-resolv.conf").expect("a file"),
        "nameserver 192.0.2.1\nsearch example\n"
    );
    let hosts = file("rkt-hosts").expect("a file");
    assert!(hosts.contains("192.0.2.2 box\n"), "{hosts}");
}

#[test]
fn pod_directory_holds_what_stage1_reads() {
    let host = Host::new(RECORD);
    host.pod("run", &["--memory=1Gi"])
        .status()
        .expect("fairing starts");
    let pod = host.path("data/pods/run").join(&host.pods("run")[0]);
    for name in [
        "pod",
        "pod-created",
        "stage1/manifest",
        "stage1/rootfs/rkt/status",
        "stage1/rootfs/opt/stage2/image/manifest",
        "stage1/rootfs/opt/stage2/image/rootfs.erofs",
        "appsinfo/image/manifest",
    ] {
        assert!(pod.join(name).exists(), "{name}");
    }
    let text = host.stdout(&["cat-manifest", &host.pods("run")[0]]);
    let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        manifest["apps"][0]["app"]["exec"],
        serde_json::json!(["app"])
    );
    assert_eq!(
        manifest["apps"][0]["app"]["isolators"][0]["value"]["limit"],
        "1Gi"
    );
}

#[test]
fn pod_with_rm_ends_by_a_signal_to_its_parent_and_is_gone() {
    let host = Host::new(LIVING);
    let mut child = host.pod("run", &["--rm"]).spawn().expect("fairing starts");
    until("the pod runs", || {
        host.pods("run").iter().any(|uuid| {
            host.output(&["status", "--wait-ready=10s", uuid])
                .status
                .success()
        })
    });
    let uuid = host.pods("run").remove(0);
    let status = host.stdout(&["status", &uuid[..8]]);
    assert!(
        status.contains("state=running") && status.contains("jail-uid="),
        "{status}"
    );
    assert_eq!(host.output(&["rm", &uuid]).status.code(), Some(254));
    kill(pid(&child), Signal::SIGTERM).expect("a signal");
    assert_eq!(child.wait().expect("its end").code(), Some(7));
    assert!(host.pods("run").is_empty() && host.pods("exited-garbage").is_empty());
}

#[test]
fn pod_with_rm_keeps_its_exit_code_whatever_became_of_its_files() {
    for (fate, is_told) in [
        ("rm -rf \"$(pwd)\"", false),
        ("mv \"$(pwd)\" ../../exited-garbage/", false),
        (
            "rmdir ../../exited-garbage && : >../../exited-garbage",
            true,
        ),
    ] {
        let host = Host::new(&format!("#!/bin/sh\n{fate}\nexit 7\n"));
        let output = host
            .pod("run", &["--rm", "--quiet"])
            .output()
            .expect("fairing starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{fate}: {text}");
        assert_eq!(text.contains("fairing: "), is_told, "{fate}: {text}");
        assert!(host.pods("exited-garbage").is_empty(), "{fate}");
    }
}

#[test]
fn help_of_every_command_fits_its_lines_and_names_what_it_takes() {
    let host = Host::new(RECORD);
    let mut commands = vec![
        "image import",
        "image list",
        "image inspect",
        "image rm",
        "image",
    ];
    commands.extend([
        "run",
        "prepare",
        "run-prepared",
        "list",
        "status",
        "stop",
        "kill",
        "wait",
        "logs",
        "enter",
        "rm",
    ]);
    commands.extend(["gc", "cat-manifest", "doctor", "version"]);
    for command in commands {
        let words: Vec<_> = command.split(' ').collect();
        let long = host.stdout(&[&words[..], &["--help"]].concat());
        assert_eq!(long, host.stdout(&[&words[..], &["-h"]].concat()));
        assert!(
            long.contains(&format!("Usage: fairing {command}")),
            "{long}"
        );
        assert!(long.contains("--dir <DIR>"), "{long}");
        assert!(
            long.lines().all(|line| line.chars().count() <= 120),
            "{long}"
        );
    }
}

#[test]
fn pod_is_waited_for_and_released_once_then_removed() {
    let host = Host::new(LIVING);
    host.entrypoint("gc", "#!/bin/sh\necho \"$@ in $(pwd)\" >>\"$RECORD\"\n");
    host.entrypoint("stop", "#!/bin/sh\nkill -TERM $(cat pid)\n");
    host.manifest(&["run", "gc", "stop"]);
    let mut child = host
        .pod(
            "run",
            &[
                "--uuid-file-save",
                host.path("uuid").to_str().expect("text"),
            ],
        )
        .spawn()
        .expect("fairing starts");
    until("the UUID is written", || {
        fs::read_to_string(host.path("uuid")).is_ok_and(|text| text.len() == 37)
    });
    let uuid = fs::read_to_string(host.path("uuid"))
        .expect("a UUID")
        .trim()
        .to_owned();
    until("the pod is ready", || {
        host.output(&["status", "--wait-ready=10s", &uuid])
            .status
            .success()
    });
    let waiting = host
        .command(&["status", "--wait", &uuid])
        .stdout(Stdio::piped())
        .spawn()
        .expect("fairing starts");
    assert_eq!(host.stdout(&["stop", &uuid]), format!("\"{uuid}\"\n"));
    assert_eq!(child.wait().expect("its end").code(), Some(7));
    let waited = waiting.wait_with_output().expect("its end");
    assert!(String::from_utf8_lossy(&waited.stdout).contains("state=exited"));
    host.stdout(&["list"]);
    host.stdout(&["list"]);
    let released = lines(&host.path("record"));
    assert_eq!(released.len(), 1, "{released:?}");
    host.stdout(&["gc", "--mark-only"]);
    assert_eq!(host.pods("exited-garbage").join(","), uuid);
    host.stdout(&["gc", "--grace-period=0"]);
    assert!(host.pods("exited-garbage").is_empty());
    let last = lines(&host.path("record")).pop().expect("a line");
    assert!(
        last.contains("--local-config /etc/fairing") && last.contains("exited-garbage"),
        "{last}"
    );
}

#[test]
fn pod_prepared_is_run_later() {
    let host = Host::new(RECORD);
    let output = host.pod("prepare", &[]).output().expect("fairing starts");
    let uuid = String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned();
    assert!(host.stdout(&["status", &uuid]).contains("state=prepared"));
    let status = host
        .output(&["run-prepared", "--hostname=late", &uuid[..13]])
        .status;
    assert_eq!(status.code(), Some(42));
    assert!(lines(&host.path("record")).contains(&"arg=--hostname=late".to_owned()));
    assert_eq!(
        host.output(&["run-prepared", &uuid]).status.code(),
        Some(254)
    );
    assert_eq!(host.stdout(&["rm", &uuid]), format!("\"{uuid}\"\n"));
}

#[test]
fn process_killed_while_it_prepares_leaves_nothing_after_the_next_command() {
    let host = Host::new(RECORD);
    // Enough files that laying the pod out takes a while.
    for index in 0..3000 {
        fs::write(host.path("stage1/rootfs").join(format!("file{index}")), "x").expect("a file");
    }
    for _ in 0..4 {
        let mut child = host
            .pod("run", &[])
            .process_group(0)
            .spawn()
            .expect("fairing starts");
        until("the pod is being prepared", || {
            !host.pods("prepare").is_empty() || !host.pods("run").is_empty()
        });
        child.kill().expect("a signal");
        child.wait().expect("its end");
        host.stdout(&["list"]);
        for folder in ["embryo", "prepare", "garbage"] {
            assert!(host.pods(folder).is_empty(), "{folder}");
        }
    }
}

#[test]
fn command_that_cannot_work_says_why_and_leaves_with_254() {
    let host = Host::new(RECORD);
    for (words, reason) in [
        (&["run", "--stage1=/nowhere", "image"][..], "does not exist"),
        (&["run", "no-such-image"], "neither a path nor an image"),
        (&["run"], "IMAGE"),
        (&["status", "00000000"], "no pod"),
        (&["enter", "00000000"], "no pod"),
        (&["frobnicate"], "unrecognized"),
    ] {
        let mut command = host.command(words);
        if words.len() == 2 && words[0] == "run" {
            command.arg(format!("--stage1={}", host.path("stage1").display()));
        }
        let output = command.output().expect("fairing starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(254), "{words:?}");
        assert!(text.contains(reason), "{words:?}: {text}");
    }
    assert!(host.pods("run").is_empty());
}

#[test]
fn image_is_imported_listed_and_removed() {
    let host = Host::new(RECORD);
    let image = host.path("image.tar");
    let image = image.to_str().expect("text");
    let id = host.stdout(&["image", "import", image]);
    assert_eq!(host.stdout(&["image", "import", "--quiet", image]), id);
    let text = host.stdout(&["image", "list", "--format=json"]);
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(list[0]["id"], id.trim());
    assert_eq!(list[0]["kind"], "rootfs");
    let fields = [
        "image",
        "list",
        "--fields=id,kind",
        "--full=true",
        "--no-legend",
    ];
    assert_eq!(host.stdout(&fields), format!("{}  rootfs\n", id.trim()));
    assert!(
        host.stdout(&["image", "inspect", id.trim()])
            .contains("ImageManifest")
    );
    host.stdout(&["image", "rm", id.trim()]);
    assert_eq!(host.stdout(&["image", "list", "--format=json"]), "[]\n");
}

#[test]
fn list_of_pods_that_are_filtered_has_those_alone_of_which_all_is_true() {
    let host = Host::new(RECORD);
    for (name, label) in [("one", "team=a"), ("two", "team=b")] {
        let (name, label) = (format!("--name={name}"), format!("--label={label}"));
        let prepared = host.pod("prepare", &[&name, &label]).output();
        assert!(prepared.expect("fairing starts").status.success());
    }
    let names = |filters: &[&str]| {
        let filters: Vec<_> = filters.iter().map(|f| format!("--filter={f}")).collect();
        let words = ["list", "--no-legend"].into_iter();
        let words: Vec<_> = words.chain(filters.iter().map(String::as_str)).collect();
        let listed = host.stdout(&words);
        let names = listed
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&["label=team"]), "one two");
    assert_eq!(names(&["label=team=b"]), "two");
    assert_eq!(names(&["label=team", "name=one", "state=prepared"]), "one");
    assert_eq!(names(&["label=no"]) + &names(&["state=running"]), "");
    assert!(!host.output(&["list", "--filter=no=x"]).status.success());
}

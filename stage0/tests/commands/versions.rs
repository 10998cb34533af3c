//! Stage 1s of every interface version, and both files by which one tells its pid (contract sections 1.2 to 1.5).

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::recorder::{Host, RECORD, until};

/// Notes its arguments beside what `run` records.
const GC: &str = "#!/bin/sh\necho \"gc $*\" >>\"$RECORD\"\n";

#[test]
fn stage1_of_each_version_is_told_what_it_knows_and_the_user_what_it_does_not() {
    let flags = [
        "--debug",
        "--net=none",
        "--hostname=box",
        "--dns=192.0.2.1",
        "--insecure-options=all-run",
        "--ipc=private",
    ];
    // Each with the version that it came with.
    let words = [
        (1, "--debug"),
        (1, "--net=none"),
        (1, "--local-config=/etc/fairing"),
        (2, "--hostname=box"),
        (4, "--dns-conf-mode=resolv=stage0,hosts=default"),
        (3, "--disable-capabilities-restriction"),
        (3, "--disable-paths"),
        (3, "--disable-seccomp"),
        (6, "--ipc=private"),
    ];
    for version in [None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)] {
        let host = Host::new(RECORD);
        host.entrypoint("gc", GC);
        host.manifest(&["run", "gc"]);
        host.speaks(version);
        let output = host.pod("run", &flags).output().expect("fairing starts");
        assert_eq!(output.status.code(), Some(42), "{output:?}");
        let uuid = host.pods("run").remove(0);
        host.stdout(&["rm", &uuid]);
        let record = fs::read_to_string(host.path("record")).expect("a record");
        let told: Vec<_> = record
            .lines()
            .filter_map(|line| line.strip_prefix("arg="))
            .collect();
        let number = version.unwrap_or(1);
        let known = words.iter().filter(|(since, _)| *since <= number);
        let expected: Vec<_> = known.map(|(_, word)| *word).chain([&*uuid]).collect();
        assert_eq!(told, expected, "{version:?}");
        // The three that switch protections off are left out without a word.
        let said = String::from_utf8_lossy(&output.stderr);
        for (since, flag) in [(2, "hostname"), (4, "dns-conf-mode"), (6, "ipc")] {
            let warning = format!("is too old for --{flag}, going on without");
            assert_eq!(
                said.contains(&warning),
                number < since,
                "{version:?}: {said}"
            );
        }
        assert!(!said.contains("--disable"), "{said}");
        let gc = match number {
            ..5 => format!("gc {uuid}"),
            _ => format!("gc --local-config /etc/fairing {uuid}"),
        };
        let collected: Vec<_> = record
            .lines()
            .filter(|line| line.starts_with("gc "))
            .collect();
        assert!(collected.iter().all(|line| *line == gc), "{collected:?}");
        assert!(!collected.is_empty(), "{record}");
    }
}

#[test]
fn pod_that_names_its_parent_is_entered_by_the_pid_of_the_only_child() {
    let host = Host::new("#!/bin/sh\nsleep 1000 &\necho $$ >ppid\nwait $!\nexit 4\n");
    host.entrypoint("enter", "#!/bin/sh\necho \"$*\"\n");
    host.manifest(&["run", "enter"]);
    let mut child = host.pod("run", &[]).spawn().expect("fairing starts");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let only = || {
        fs::read_to_string(&children)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    until("the pod's process names itself", || {
        let pods = host.pods("run");
        pods.iter()
            .any(|uuid| host.path("data/pods/run").join(uuid).join("ppid").exists())
    });
    let uuid = host.pods("run").remove(0);
    let status = host.stdout(&["status", &uuid]);
    assert!(status.contains(&format!("pid={}\n", only())), "{status}");
    let entered = host.stdout(&["enter", &uuid, "cat", "-n"]);
    let expected = format!("--pid={} --appname=image -- cat -n\n", only());
    assert_eq!(entered, expected);
    let only = only().parse().expect("a pid");
    kill(Pid::from_raw(only), Signal::SIGTERM).expect("a signal");
    assert_eq!(child.wait().expect("its end").code(), Some(4));
}

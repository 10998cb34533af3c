//! How pods are brought to their end, and what is told of it: `stop`, `kill`, `wait`, `--rm`.

use std::process::Stdio;

use crate::recorder::{Host, until};

/// A `run` that lives until it is asked to end, records 7 for its apps, and leaves with it.
const RECORDING: &str = "#!/bin/sh\n\
    trap 'for app in stage1/rootfs/opt/stage2/*; do echo 7 >stage1/rootfs/rkt/status/${app##*/}; done; exit 7' TERM\n\
    echo $$ >pid\nln -s ready stage1/rootfs/rkt/supervisor-status\nwhile :; do sleep 0.05; done\n";

/// A pod in the background; its UUID.
fn detached(host: &Host, flags: &[&str]) -> String {
    let flags = [&["-d"], flags].concat();
    let output = host.pod("run", &flags).output().expect("fairing starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

#[test]
fn pod_that_is_stopped_has_ended_by_then_and_wait_prints_its_code() {
    let host = Host::new(RECORDING);
    host.entrypoint("stop", "#!/bin/sh\nkill -TERM $(cat pid)\n");
    host.manifest(&["run", "stop"]);
    let (uuid, other) = (detached(&host, &[]), detached(&host, &[]));
    let waiting = host
        .command(&["wait", &uuid, &other])
        .stdout(Stdio::piped())
        .spawn()
        .expect("fairing starts");
    let stopped = host.stdout(&["stop", &uuid, &other]);
    assert_eq!(stopped, format!("\"{uuid}\"\n\"{other}\"\n"));
    host.stdout(&["rm", &other]);
    let waited = waiting.wait_with_output().expect("its end");
    let codes = String::from_utf8(waited.stdout).expect("text");
    // The second may be removed before anybody waits for it.
    assert!(matches!(&*codes, "7\n7\n" | "7\n"), "{codes:?}");
    assert_eq!(host.stdout(&["wait", &uuid]), "7\n");
    for command in ["stop", "kill"] {
        let output = host.output(&[command, &uuid]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(254));
        assert!(text.contains("is not running but exited"), "{text}");
    }
}

#[test]
fn signal_reaches_the_pod_or_is_refused_and_one_that_kills_leaves_no_code() {
    let host = Host::new(RECORDING);
    let uuid = detached(&host, &[]);
    let refused = host.output(&["kill", "--signal=WINCH", &uuid]);
    assert_eq!(refused.status.code(), Some(254));
    host.stdout(&["kill", "--signal=term", &uuid]);
    assert_eq!(host.stdout(&["wait", &uuid]), "7\n");
    let uuid = detached(&host, &[]);
    host.stdout(&["kill", &uuid]);
    let waited = host.output(&["wait", &uuid]);
    let text = String::from_utf8_lossy(&waited.stderr);
    assert_eq!(waited.status.code(), Some(254));
    assert!(text.contains("was killed"), "{text}");
}

#[test]
fn pod_with_rm_whose_parent_is_gone_is_removed_by_the_next_command() {
    let host = Host::new(RECORDING);
    let uuid = detached(&host, &["--rm"]);
    assert_eq!(host.pods("run").join(","), uuid);
    host.stdout(&["list"]);
    assert_eq!(host.pods("run").join(","), uuid, "it runs");
    host.stdout(&["kill", "-s", "TERM", &uuid]);
    until("it is removed", || {
        host.stdout(&["list"]);
        host.pods("run").is_empty() && host.pods("exited-garbage").is_empty()
    });
    let mut parent = host.pod("run", &["--rm"]).spawn().expect("fairing starts");
    until("the pod runs", || {
        let uuids = host.pods("run");
        let ready = |uuid| host.output(&["status", "--wait-ready=10s", uuid]).status;
        uuids.first().is_some_and(|uuid| ready(uuid).success())
    });
    let uuid = host.pods("run").remove(0);
    parent.kill().expect("it is there");
    parent.wait().expect("its end");
    host.stdout(&["kill", "-s", "TERM", &uuid]);
    until("it is removed", || {
        host.stdout(&["list"]);
        host.pods("run").is_empty()
    });
}

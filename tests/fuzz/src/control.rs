//! The control protocol, both directions. Input: a stream of frames.

use std::fmt::Debug;
use std::io;

use guest_init::protocol::{Status, ToGuest, ToHost, receive, send, take};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads the stream as guest-init and as the host do.
pub fn run(input: &[u8]) {
    agree::<ToGuest>(input);
    agree::<ToHost>(input);
}

/// The blocking reader and the one that never waits come to the same, and what was read can be said again.
fn agree<M: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    let (mut whole, mut rest) = (Vec::new(), input);
    let faulty = loop {
        match receive::<M>(&mut rest) {
            Ok(Some(message)) => whole.push(message),
            Ok(None) => break false,
            Err(error) => break error.kind() != io::ErrorKind::UnexpectedEof,
        }
    };
    let mut arrived = input.to_vec();
    match take::<M>(&mut arrived) {
        Ok(taken) => assert_eq!((taken, false), (whole, faulty)),
        Err(_) => assert!(faulty, "only the reader that never waits sees a fault"),
    }
}

/// A few messages each way.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut to_guest = Vec::new();
    let boot = serde_json::json!({"boot": {"hostname": "h", "clock_ns": 1, "entropy": [1, 2], "cpus": 1,
        "scratch": "disk", "cards": [{"interface": "eth0", "addresses": [{"ip": "192.0.2.2", "prefix": 24}, {"ip": "2001:db8::2", "prefix": 64}],
            "neighbours": [{"ip": "192.0.2.1", "mac": [2, 0, 0, 0, 0, 1]}]}],
        "routes": [[0, {"to": {"ip": "0.0.0.0", "prefix": 0}, "gateway": "192.0.2.1", "gateway_on_link": true, "source": null, "priority": 7,
            "mtu": 1300, "window": null}]], "shares": ["auto", "none"], "resolv": null, "hosts": "h", "limits": {"cpu_milli": 900}, "sysctls": [["kernel/msgmax", "1"]], "debug": false}});
    let start = serde_json::json!({"start": {"task": 0, "app": {"name": "a", "root": {"image": {"number": 0, "bytes": 4096}}, "read_only_root": false,
        "restrict_paths": true, "powers": {"capabilities": ["CAP_KILL"], "no_new_privileges": true, "seccomp": [1],
        "oom_score_adj": 5}, "limits": {"cpu_milli": 1500, "cpu_weight": null, "memory_bytes": 1, "processes": 2,
        "disk_bytes": 3, "disk_operations": 4}, "resource_limits": [{"resource": "nofile", "soft": 1, "hard": 2}], "built_in": false, "exec": ["/x"], "search_path": "/bin",
        "environment": [["A", "1"]], "working_directory": "/", "user": "0", "group": "0", "supplementary_gids": [1],
        "mounts": [{"volume": {"share": {"number": 0, "cache": "none"}}, "target": "/d", "read_only": true}],
        "pre_start": ["/a"], "post_stop": [],
        "stdio": {"streams": {"stdin": 1024, "stdout": null, "stderr": 1026}}}}});
    let enter = serde_json::json!({"enter": {"task": 1, "entry": {"app": "a", "built_in": true, "exec": ["x"], "user": "root",
        "environment": [["A", "1"]], "working_directory": null,
        "stdio": {"terminal": {"port": 1028, "window": {"rows": 24, "columns": 80}}}}}});
    for message in [boot, start, enter] {
        let message: ToGuest = serde_json::from_value(message).expect("a message of the protocol");
        send(&mut to_guest, &message).expect("a short message");
    }
    send(&mut to_guest, &ToGuest::PowerOff).expect("a short message");
    let mut to_host = Vec::new();
    for message in [
        ToHost::Hello { version: 1 },
        ToHost::Started { task: 0 },
        ToHost::Exited {
            task: 0,
            status: Status::Code(3),
            memory_exceeded: false,
        },
        ToHost::NotStarted {
            task: 1,
            code: 127,
            reason: "r".into(),
        },
    ] {
        send(&mut to_host, &message).expect("a short message");
    }
    vec![to_guest, to_host]
}

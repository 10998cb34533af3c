//! Networks of plugins that write down what they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cni::{Attachment, Container, Network, Records};
use serde_json::{Map, Value, json};

/// A folder of plugins and what they have written down.
struct Plugins(tempfile::TempDir);

impl Plugins {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A plugin that writes down its calls and runs `script`.
    fn add(&self, name: &str, script: &str) {
        let told = self.path("told");
        let record = "printf '%s %s %s %s %s %s ' \"$0\" $CNI_COMMAND $CNI_CONTAINERID \"$CNI_NETNS\" $CNI_IFNAME $CNI_ARGS; cat; echo";
        let text = format!(
            "#!/bin/sh\n{{ {record}; }} >>{}\n{script}\n",
            told.display()
        );
        let path = self.path(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    fn container(&self) -> Container {
        Container {
            id: "pod".into(),
            namespace: Some("/run/netns/pod".into()),
            plugins: vec!["/nonexistent".into(), self.0.path().into()],
        }
    }

    /// Each call: program, environment, configuration.
    fn told(&self) -> Vec<(String, Value)> {
        let told = fs::read_to_string(self.path("told")).unwrap_or_default();
        let call = |line: &str| {
            let (words, json) = line.split_once(" {").expect("a configuration");
            let name = words.strip_prefix(self.0.path().to_str().expect("text"));
            let json = serde_json::from_str(&format!("{{{json}")).expect("JSON");
            (name.expect("a plugin").into(), json)
        };
        told.lines().map(call).collect()
    }
}

fn network(json: &Value) -> Network {
    Network::parse(json.to_string().as_bytes()).expect("a network")
}

fn two() -> Network {
    network(&json!({
        "cniVersion": "1.0.0", "name": "both",
        "plugins": [
            {"type": "first", "own": 1},
            {"type": "second", "capabilities": {"portMappings": true, "mac": false}},
        ],
    }))
}

fn attachment(network: Network) -> Attachment {
    let capabilities = json!({"portMappings": [{"hostPort": 80}], "mac": "02:00:00:00:00:01"});
    let Value::Object(capabilities) = capabilities else {
        unreachable!("an object")
    };
    Attachment {
        network,
        interface: "eth0".into(),
        arguments: "A=1;B=2".into(),
        capabilities,
        result: None,
    }
}

#[test]
fn plugins_run_in_order_each_with_the_result_before_and_backwards_when_deleted() {
    let plugins = Plugins::new();
    plugins.add("first", "[ $CNI_COMMAND != ADD ] || echo '{\"from\": 1}'");
    plugins.add("second", "[ $CNI_COMMAND != ADD ] || echo '{\"from\": 2}'");
    let mut attachment = attachment(two());
    assert!(attachment.network.offers("portMappings") && !attachment.network.offers("mac"));
    attachment
        .add(&plugins.container(), |_| Ok(()))
        .expect("added");
    assert_eq!(attachment.result, Some(json!({"from": 2})));
    // What has been kept is as good.
    let kept = serde_json::to_vec(&attachment).expect("JSON");
    let attachment: Attachment = serde_json::from_slice(&kept).expect("the same");
    attachment.check(&plugins.container()).expect("checked");
    let gone = Container {
        namespace: None,
        ..plugins.container()
    };
    attachment.delete(&gone).expect("deleted");
    let common = |mut own: Value, previous: Option<u32>| {
        let object = own.as_object_mut().expect("an object");
        object.extend([
            ("name".into(), "both".into()),
            ("cniVersion".into(), "1.0.0".into()),
        ]);
        object.extend(previous.map(|from| ("prevResult".into(), json!({"from": from}))));
        own
    };
    let first = |previous| common(json!({"type": "first", "own": 1}), previous);
    let second = |previous| {
        let ports = json!({"portMappings": [{"hostPort": 80}]});
        common(json!({"type": "second", "runtimeConfig": ports}), previous)
    };
    let call = |name: &str, command: &str, namespace: &str| {
        format!("/{name} {command} pod {namespace} eth0 IgnoreUnknown=1;A=1;B=2")
    };
    let there = "/run/netns/pod";
    assert_eq!(
        plugins.told(),
        [
            (call("first", "ADD", there), first(None)),
            (call("second", "ADD", there), second(Some(1))),
            (call("first", "CHECK", there), first(Some(2))),
            (call("second", "CHECK", there), second(Some(2))),
            (call("second", "DEL", ""), second(Some(2))),
            (call("first", "DEL", ""), first(Some(2))),
        ]
    );
}

#[test]
fn plugin_that_fails_is_quoted_and_every_one_is_asked_to_delete() {
    let plugins = Plugins::new();
    plugins.add("first", "");
    plugins.add(
        "second",
        "echo '{\"code\": 11, \"msg\": \"no address left\", \"details\": \"in 192.0.2.0/30\"}'; exit 1",
    );
    let mut attachment = attachment(two());
    let error = format!(
        "{:#}",
        attachment
            .add(&plugins.container(), |_| Ok(()))
            .expect_err("fails")
    );
    for part in [
        "network both",
        "second (ADD)",
        "no address left (in 192.0.2.0/30)",
    ] {
        assert!(error.contains(part), "{part} not in {error}");
    }
    assert!(attachment.delete(&plugins.container()).is_err());
    let commands: Vec<_> = plugins.told().into_iter().map(|(call, _)| call).collect();
    assert_eq!(commands.len(), 4);
    assert!(commands[3].starts_with("/first DEL"));
    plugins.add("second", "echo some words >&2; exit 3");
    let error = format!(
        "{:#}",
        attachment
            .add(&plugins.container(), |_| Ok(()))
            .expect_err("fails")
    );
    assert!(error.contains("some words"), "{error}");
    plugins.add("second", "echo no JSON");
    assert!(attachment.add(&plugins.container(), |_| Ok(())).is_err());
    fs::remove_file(plugins.path("second")).expect("removed");
    attachment
        .delete(&plugins.container())
        .expect("deleted by the first");
    let error = format!(
        "{:#}",
        attachment
            .add(&plugins.container(), |_| Ok(()))
            .expect_err("fails")
    );
    assert!(
        error.contains("there is no network plugin second"),
        "{error}"
    );
}

/// Speaks these versions, when asked.
fn speaking(versions: &[&str], script: &str) -> String {
    let answer = json!({"cniVersion": "1.0.0", "supportedVersions": versions});
    format!("case $CNI_COMMAND in VERSION) echo '{answer}';; {script} esac")
}

#[test]
fn plugins_speak_the_highest_version_that_all_know_and_are_asked_first_whether_they_are_able_to() {
    let plugins = Plugins::new();
    let able = "ADD) echo '{}';;";
    plugins.add(
        "first",
        &speaking(&["0.4.0", "1.0.0", "1.1.0", "9.0.0"], able),
    );
    plugins.add("second", &speaking(&["0.4.0", "1.1.0", "9.0.0"], able));
    let newest = |versions: &[&str]| {
        network(
            &json!({"cniVersion": "0.4.0", "cniVersions": versions, "name": "new",
            "plugins": [{"type": "first"}, {"type": "second"}]}),
        )
    };
    let mut added = attachment(newest(&["0.4.0", "1.0.0", "1.1.0", "9.0.0"]));
    added.add(&plugins.container(), |_| Ok(())).expect("added");
    let told = plugins.told();
    let commands = told.iter().map(|(call, _)| call.split(' ').nth(1));
    let commands: Vec<_> = commands.map(Option::unwrap_or_default).collect();
    assert_eq!(
        commands,
        ["VERSION", "VERSION", "STATUS", "STATUS", "ADD", "ADD"]
    );
    assert!(
        told[2..]
            .iter()
            .all(|(_, json)| json["cniVersion"] == "1.1.0")
    );
    // What belongs to others than these.
    let valid = [("pod".to_owned(), "eth0".to_owned())];
    let collects = |network: &Network| network.collect(plugins.container().plugins, &valid);
    assert!(collects(&added.network).expect("collected"));
    assert!(!collects(&two()).expect("older plugins are not asked"));
    assert!(collects(&newest(&["1.0.0", "1.1.0"])).expect("collected"));
    let told = plugins.told();
    let (call, json) = told.last().expect("a call");
    assert!(call.starts_with("/second GC "), "{call}");
    let listed = json!([{"containerID": "pod", "ifname": "eth0"}]);
    assert_eq!(json["cni.dev/valid-attachments"], listed);
    // One that is not able to, and versions that are none of all.
    let unable = "STATUS) echo '{\"code\": 50, \"msg\": \"no uplink\"}'; exit 1;;";
    plugins.add("second", &speaking(&["1.1.0"], unable));
    let refused = |versions: &[&str]| {
        let mut refused = attachment(newest(versions));
        let error = refused.add(&plugins.container(), |_| Ok(()));
        format!("{:#}", error.expect_err("refused"))
    };
    assert!(refused(&["1.1.0"]).contains("no uplink"));
    assert!(refused(&["0.4.0", "1.0.0"]).contains("no version that all plugins speak"));
    let strange = "ADD) echo '{\"code\": 1, \"msg\": \"incompatible\"}'; exit 1;;";
    plugins.add("first", &speaking(&["0.1.0", "0.2.0"], strange));
    let told = refused(&[]);
    assert!(
        told.contains("incompatible; it speaks 0.1.0, 0.2.0"),
        "{told}"
    );
}

#[test]
fn plugin_with_much_to_say_and_nothing_to_hear_is_not_waited_for() {
    let plugins = Plugins::new();
    let text = "#!/bin/sh\nhead -c 300000 /dev/zero >&2; head -c 300000 /dev/zero | tr '\\0' ' '; echo '{}'\n";
    let path = plugins.path("first");
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    let long = "x".repeat(300_000);
    let network =
        network(&json!({"name": "one", "type": "first", "cniVersion": "0.4.0", "long": long}));
    let mut attachment = attachment(network);
    attachment
        .add(&plugins.container(), |_| Ok(()))
        .expect("added");
    assert_eq!(attachment.result, Some(Value::Object(Map::new())));
}

#[test]
fn networks_are_found_in_order_the_first_of_a_name_and_faults_beside_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    write("20-later.conf", r#"{"name": "one", "type": "later"}"#);
    write(
        "10-one.conflist",
        r#"{"name": "one", "plugins": [{"type": "first"}]}"#,
    );
    write(
        "30-two.json",
        r#"{"name": "two", "type": "bridge", "cniVersion": "0.3.1"}"#,
    );
    write("40-broken.conf", "{");
    write(
        "50-climbs.conf",
        r#"{"name": "climbs", "type": "../../bin/sh"}"#,
    );
    write("60-name.conf", r#"{"name": "../three", "type": "bridge"}"#);
    write("70-empty.conflist", r#"{"name": "none", "plugins": []}"#);
    write("80-untyped.conf", r#"{"name": "untyped"}"#);
    write("notes.txt", "no configuration");
    let folders = [Path::new("/nonexistent").into(), folder.path().to_owned()];
    let (networks, faults) = Network::find_all(&folders).expect("read");
    let names: Vec<_> = networks.iter().map(|network| &*network.name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(networks[1].cni_version, "0.3.1");
    let faults: Vec<_> = faults.iter().map(|fault| format!("{fault:#}")).collect();
    assert_eq!(faults.len(), 5, "{faults:?}");
    for (fault, part) in faults.iter().zip([
        "40-broken",
        "no type of a plugin",
        "no name",
        "no plugins",
        "no type",
    ]) {
        assert!(fault.contains(part), "{part} not in {fault}");
    }
}

#[test]
fn plugin_that_outlives_its_caller_is_waited_for_before_anything_is_deleted() {
    let plugins = Plugins::new();
    // A child goes on when the plugin, and whoever executed it, is gone.
    let made = plugins.path("made");
    plugins.add(
        "first",
        &format!(
            "{{ sleep 2; echo made >{}; }} </dev/null >/dev/null 2>&1 &",
            made.display()
        ),
    );
    let network = network(&json!({"name": "one", "type": "first", "cniVersion": "1.0.0"}));
    let folder = plugins.path("net");
    let mut records = Records::create(&folder, vec![attachment(network)]).expect("written down");
    let added = records.add(|attachment, keep| attachment.add(&plugins.container(), keep));
    added.expect("added");
    drop(records);
    assert!(!made.exists());
    let mut records = Records::read(&folder).expect("read").expect("there");
    assert!(made.exists(), "what is being made was not waited for");
    plugins.add("first", "");
    let deleted = records.delete(|attachment| attachment.delete(&plugins.container()));
    deleted.expect("deleted");
    records.forget().expect("nothing left");
}

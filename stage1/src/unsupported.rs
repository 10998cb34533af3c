//! What a pod asks for and does not get, where that costs speed or comfort only: one line each for the user. What would
//! cost protection is refused instead (`plan`).

use std::collections::BTreeSet;

use contract::image::App;
use contract::{PodManifest, RunArguments};

use crate::network::Way;
use crate::{isolators, limits};

/// Warnings about the pod as a whole.
pub fn of_pod(pod: &PodManifest, arguments: &RunArguments) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_alone = Way::of(arguments, true) == Way::Loopback;
    for port in pod.ports.iter().filter(|_| is_alone) {
        warnings.push(format!(
            "port {:?} is not reachable at the host's port {}: with --net=none the pod has loopback alone",
            port.name, port.host_port
        ));
    }
    if let Some(mode) = arguments.ipc.as_ref().filter(|mode| *mode == "parent") {
        warnings.push(format!(
            "--ipc={mode} is ignored: a virtual machine cannot share the host's IPC"
        ));
    }
    if arguments.private_users.is_some() {
        warnings.push("--private-users is ignored: a virtual machine's users are its own".into());
    }
    let isolators = pod.isolators.iter().map(|isolator| isolator.name.as_str());
    let unknown = isolators.filter(|name| !limits::OF_POD.contains(name));
    warnings.extend(unknown.map(|name| format!("isolator {name} of the pod is not supported")));
    warnings
}

/// Warnings about the limits and ports of one app; each isolator is named once, however often it is there.
pub fn of_app(name: &str, app: &App) -> Vec<String> {
    let names = app.isolators.iter().map(|isolator| &*isolator.name);
    let names: BTreeSet<_> = names
        .filter(|name| is_share(name) && !isolators::is_known(name))
        .collect();
    let ports = app.ports.iter().filter(|port| port.socket_activated);
    let sockets = ports.map(|port| {
        format!(
            "port {:?} of app {name} is socket-activated, which is not supported yet: the app gets no listening socket and has to \
             make its own",
            port.name
        )
    });
    names
        .iter()
        .map(|isolator| format!("isolator {isolator} of app {name} is not supported yet"))
        .chain(sockets)
        .collect()
}

/// Whether an isolator only shares resources out: without it the app is slower or faster, not less confined.
pub fn is_share(isolator: &str) -> bool {
    isolator.starts_with("resource/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_asked_for_and_not_given_is_one_line() {
        let pod: PodManifest = serde_json::from_str(
            r#"{"acVersion":"0.8.11","acKind":"PodManifest","ports":[{"name":"http","hostPort":80}],
                "isolators":[{"name":"resource/memory","value":{"limit":"1G"}},
                    {"name":"resource/gpu","value":{"limit":"1"}}]}"#,
        )
        .expect("a pod manifest");
        let arguments = RunArguments {
            net: "none".into(),
            ipc: Some("parent".into()),
            private_users: Some("1:2".into()),
            ..RunArguments::default()
        };
        let warnings = of_pod(&pod, &arguments);
        let about = ["http", "--ipc", "--private-users", "gpu"];
        assert_eq!(warnings.len(), about.len(), "{warnings:?}");
        for (warning, word) in warnings.iter().zip(about) {
            assert!(warning.contains(word), "{word} not in {warning}");
        }
        let private = RunArguments {
            net: "default".into(),
            ipc: Some("private".into()),
            ..RunArguments::default()
        };
        let plain: PodManifest =
            serde_json::from_str(r#"{"acVersion":"0.8.11","acKind":"PodManifest"}"#)
                .expect("a pod manifest");
        assert!(of_pod(&plain, &private).is_empty());
    }

    #[test]
    fn shares_and_sockets_that_an_app_does_not_get_are_named_once() {
        let app: App = serde_json::from_str(
            r#"{"exec":["/x"],"user":"0","group":"0","ports":[
                {"name":"http","protocol":"tcp","port":80,"socketActivated":true},
                {"name":"ssh","protocol":"tcp","port":22}],"isolators":[
                {"name":"resource/memory","value":{"limit":"1G"}},
                {"name":"resource/network-bandwidth","value":{"limit":"1"}},
                {"name":"resource/network-bandwidth","value":{"limit":"2"}},
                {"name":"os/linux/cpu-shares","value":512}]}"#,
        )
        .expect("an app");
        let warnings = of_app("web", &app);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert_eq!(
            warnings[0],
            "isolator resource/network-bandwidth of app web is not supported yet"
        );
        assert!(warnings[1].starts_with("port \"http\" of app web is socket-activated"));
    }
}

//! Pod and image manifests, quantities and arguments, as stage 1 reads them. Input: a document; as arguments, its lines.

use std::fmt::Debug;

use contract::{ImageManifest, PodManifest, RunArguments, name, quantity};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads `input` as everything that it might be.
pub fn run(input: &[u8]) {
    let pod = same_again::<PodManifest>(input);
    let image = same_again::<ImageManifest>(input);
    let apps = pod.iter().flat_map(|pod| pod.apps.iter());
    let programs = apps.filter_map(|app| app.app.as_ref());
    for app in programs.chain(image.iter().filter_map(|image| image.app.as_ref())) {
        for isolator in &app.isolators {
            if let Some(limit) = isolator.value.get("limit").and_then(|limit| limit.as_str()) {
                let _ = quantity::parse_whole(limit);
            }
        }
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _ = quantity::parse_milli(text);
    if let Some(name) = name::sanitize_ac_name(text) {
        assert!(name::is_ac_name(&name), "{name:?}");
    }
    if let Ok(arguments) = RunArguments::parse(text.lines().map(str::to_owned)) {
        let (argv, _) = arguments.to_argv(6);
        assert_eq!(RunArguments::parse(argv).ok(), Some(arguments));
    }
}

/// A manifest that is read, written, and read again says the same.
fn same_again<M>(input: &[u8]) -> Option<M>
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let manifest: M = serde_json::from_slice(input).ok()?;
    let text = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    let again: M = serde_json::from_slice(&text).expect("what was written can be read");
    let third = serde_json::to_vec(&again).expect("a manifest is JSON");
    assert_eq!(text, third);
    Some(manifest)
}

/// A pod, an image, arguments and a quantity.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let app = serde_json::json!({"exec": ["/bin/app"], "user": "app", "group": "0", "supplementaryGIDs": [1],
        "workingDirectory": "/srv", "environment": [{"name": "A", "value": "1"}],
        "mountPoints": [{"name": "data", "path": "/data"}],
        "ports": [{"name": "web", "protocol": "tcp", "port": 80, "count": 2}],
        "isolators": [{"name": "resource/memory", "value": {"limit": "64Mi"}}]});
    let image = serde_json::json!({"acVersion": "0.8.11", "acKind": "ImageManifest", "name": "example.com/app",
        "labels": [{"name": "os", "value": "linux"}], "app": app, "annotations": [{"name": "a", "value": "b"}]});
    let pod = serde_json::json!({"acVersion": "0.8.11", "acKind": "PodManifest",
        "apps": [{"name": "app", "image": {"id": "sha512-00"}, "app": app, "readOnlyRootFS": true,
            "mounts": [{"volume": "data", "path": "/data"}]}],
        "volumes": [{"name": "data", "kind": "empty", "mode": "0755", "uid": 1}],
        "ports": [{"name": "web", "hostPort": 8080}]});
    let arguments = "--debug\n--net=default\n--hostname=box\n--ipc=private\n6733aee0-29d7-4e4c-b2b0-5c4b3a0d0b57";
    vec![
        pod.to_string().into_bytes(),
        image.to_string().into_bytes(),
        arguments.into(),
        "1.5Gi".into(),
    ]
}

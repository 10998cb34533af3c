//! Manifests, arguments and names as a stranger might write them.

use hostile::{damage, damage_json, faults, json_faults};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::name::{is_ac_name, sanitize_ac_name};
use crate::{ImageManifest, PodManifest, RunArguments};

/// An app with every field of the schema.
fn app() -> Value {
    json!({
        "exec": ["/bin/app", "--flag"], "user": "app", "group": "0", "supplementaryGIDs": [1, 4_294_967_294_u32],
        "eventHandlers": [{"name": "pre-start", "exec": ["/bin/true"]}], "workingDirectory": "/srv",
        "environment": [{"name": "A", "value": "1"}], "mountPoints": [{"name": "data", "path": "/data", "readOnly": true}],
        "ports": [{"name": "web", "protocol": "tcp", "port": 80, "count": 2, "socketActivated": false}],
        "isolators": [{"name": "resource/memory", "value": {"limit": "64Mi"}}],
        "userAnnotations": {"a": "b"}, "userLabels": {"c": 1}
    })
}

fn image() -> Value {
    json!({
        "acVersion": "0.8.11", "acKind": "ImageManifest", "name": "example.com/app",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}], "app": app(),
        "dependencies": [{"imageName": "example.com/base"}], "pathWhitelist": ["/bin/app"],
        "annotations": [{"name": "created", "value": "2020-01-01T00:00:00Z"}]
    })
}

fn pod() -> Value {
    let volume = json!({"name": "data", "kind": "host", "source": "/srv", "readOnly": true, "recursive": false,
        "mode": "0755", "uid": 1, "gid": 2});
    json!({
        "acVersion": "1.30.0+git", "acKind": "PodManifest", "volumes": [volume],
        "apps": [{"name": "app", "image": {"id": "sha512-00", "name": "example.com/app", "labels": [{"name": "os", "value": "linux"}]},
            "app": app(), "readOnlyRootFS": true, "annotations": [{"name": "a", "value": "b"}],
            "mounts": [{"volume": "data", "path": "/data", "appVolume": volume}]}],
        "isolators": [{"name": "resource/cpu", "value": {"limit": "500m"}}], "annotations": [{"name": "a", "value": "b"}],
        "ports": [{"name": "web", "hostPort": 8080, "hostIP": "127.0.0.1"}]
    })
}

/// A manifest that was taken says, written again, what it said.
fn same_again<M>(text: &[u8]) -> Result<(), TestCaseError>
where
    M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    if let Ok(manifest) = serde_json::from_slice::<M>(text) {
        let again = serde_json::to_vec(&manifest).unwrap();
        prop_assert_eq!(serde_json::from_slice::<M>(&again).unwrap(), manifest);
    }
    Ok(())
}

#[test]
fn manifest_with_every_field_keeps_every_field() {
    let image: ImageManifest = serde_json::from_value(self::image()).unwrap();
    assert_eq!(serde_json::to_value(image).unwrap(), self::image());
    let pod: PodManifest = serde_json::from_value(self::pod()).unwrap();
    assert_eq!(serde_json::to_value(pod).unwrap(), self::pod());
}

fn run_arguments() -> impl Strategy<Value = RunArguments> {
    let text = || prop::option::of("\\PC{0,12}");
    let flags = any::<[bool; 6]>();
    (
        flags,
        "\\PC{0,12}",
        [text(), text(), text()],
        [text(), text(), text()],
        "[a-z0-9]\\PC{0,8}",
    )
        .prop_map(
            |(
                flags,
                net,
                [private_users, mds_token, local_config],
                [hostname, dns_conf_mode, ipc],
                uuid,
            )| RunArguments {
                debug: flags[0],
                net,
                interactive: flags[1],
                private_users,
                mds_token,
                local_config,
                hostname,
                dns_conf_mode,
                disable_capabilities_restriction: flags[2],
                disable_paths: flags[3],
                disable_seccomp: flags[4],
                mutable: flags[5],
                ipc,
                uuid,
            },
        )
}

proptest! {
    #[test]
    fn pod_manifest_with_faults_is_refused_or_stays_the_same(faults in json_faults(4)) {
        let mut manifest = pod();
        damage_json(&mut manifest, &faults);
        same_again::<PodManifest>(&serde_json::to_vec(&manifest).unwrap())?;
    }

    #[test]
    fn image_manifest_with_faults_is_refused_or_stays_the_same(faults in json_faults(4)) {
        let mut manifest = image();
        damage_json(&mut manifest, &faults);
        same_again::<ImageManifest>(&serde_json::to_vec(&manifest).unwrap())?;
    }

    #[test]
    fn manifest_text_with_faults_is_refused_or_stays_the_same(faults in faults(4), of_pod in any::<bool>()) {
        let mut text = serde_json::to_vec(&if of_pod { pod() } else { image() }).unwrap();
        damage(&mut text, &faults);
        same_again::<PodManifest>(&text)?;
        same_again::<ImageManifest>(&text)?;
    }

    #[test]
    fn arguments_of_any_text_come_back(arguments in run_arguments()) {
        let (argv, unknown) = arguments.to_argv(6);
        prop_assert!(unknown.is_empty());
        prop_assert_eq!(RunArguments::parse(argv).unwrap(), arguments);
    }

    #[test]
    fn arguments_with_faults_do_not_panic(
        arguments in run_arguments(), faults in faults(3), which in any::<prop::sample::Index>()
    ) {
        let (mut argv, _) = arguments.to_argv(6);
        let which = which.index(argv.len());
        let mut bytes = argv[which].clone().into_bytes();
        damage(&mut bytes, &faults);
        argv[which] = String::from_utf8_lossy(&bytes).into_owned();
        let _ = RunArguments::parse(argv);
    }

    #[test]
    fn sanitized_name_of_any_text_is_an_ac_name(text in "\\PC{0,20}") {
        if let Some(name) = sanitize_ac_name(&text) {
            prop_assert!(is_ac_name(&name), "{:?}", name);
        }
    }
}

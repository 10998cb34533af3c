//! Plans of manifests with faults, and of what an image could say to hold up the pod.

use guest_init::protocol::{MAX_MESSAGE_BYTES, ToGuest};
use hostile::{damage_json, json_faults};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const HOST: Host = Host {
    cpus: 4,
    memory_mib: 2048,
    kvm_cpus: 64,
    root: true,
    window: None,
    kernel_parameters: String::new(),
};

fn image() -> Value {
    json!({
        "acVersion": "0.8.11", "acKind": "ImageManifest", "name": "example.com/app",
        "app": {"exec": ["/bin/app", "x"], "user": "app", "group": "7", "supplementaryGIDs": [1],
            "workingDirectory": "/srv", "environment": [{"name": "PATH", "value": "/bin"}, {"name": "A", "value": "1"}],
            "isolators": [{"name": "resource/memory", "value": {"limit": "64Mi"}},
                {"name": "resource/cpu", "value": {"limit": "500m"}}]}
    })
}

fn pod() -> Value {
    json!({
        "acVersion": "0.8.11", "acKind": "PodManifest",
        "apps": [{"name": "app", "image": {"id": "sha512-00"}, "readOnlyRootFS": true,
            "annotations": [{"name": annotation::APP_STDIN, "value": "stream"}, {"name": annotation::APP_STDOUT, "value": "log"}]}],
        "annotations": [{"name": annotation::POD_SCRATCH_SIZE, "value": "64Mi"}, {"name": annotation::POD_TIMEOUT, "value": "1.5"}]
    })
}

fn plan(pod: &Value, image: &Value) -> Result<Plan> {
    let pod: PodManifest = serde_json::from_value(pod.clone())?;
    let images = pod.apps.iter().map(|_| {
        Ok(PreparedImage {
            manifest: serde_json::from_value(image.clone())?,
            root: PreparedRoot::Erofs {
                files: vec![File::open("/dev/null")?],
                bytes: 4096,
            },
        })
    });
    let images = images.collect::<Result<Vec<_>>>()?;
    let arguments = RunArguments {
        uuid: "6733aee0-29d7-4e4c-b2b0-5c4b3a0d0b57".into(),
        ..RunArguments::default()
    };
    Plan::new(&pod, &images, &arguments, &HOST)
}

#[test]
fn app_is_asked_to_end_as_its_annotations_or_its_image_say() {
    let signals = |pod: &Value, image: &Value| plan(pod, image).map(|plan| plan.stopping.signals);
    assert_eq!(signals(&pod(), &image()).expect("a plan"), [15]);
    let named = |signal: &str| json!([{"name": annotation::STOP_SIGNAL, "value": signal}]);
    let mut of_image = image();
    of_image["annotations"] = named("SIGQUIT");
    assert_eq!(signals(&pod(), &of_image).expect("a plan"), [3]);
    let mut of_app = pod();
    of_app["apps"][0]["annotations"] = named("SIGRTMIN+3");
    assert_eq!(signals(&of_app, &of_image).expect("a plan"), [37]);
    of_app["apps"][0]["annotations"] = named("SIGNONE");
    assert!(signals(&of_app, &of_image).is_err());
}

#[test]
fn plan_of_good_manifests_has_what_they_say() {
    let plan = plan(&pod(), &image()).expect("a plan");
    let app = &plan.apps[0];
    let machine = plan.growth.start;
    assert_eq!((machine.cpus, machine.memory_mib), (1, 128));
    assert_eq!(plan.scratch_bytes, Some(64 << 20));
    assert_eq!(plan.timeout, Some(Duration::from_millis(1500)));
    assert_eq!((app.exec.len(), app.search_path.as_str()), (2, "/bin"));
}

#[test]
fn plan_of_several_apps_has_each_with_its_own_image_and_ports() {
    let mut pod = pod();
    let second = json!({"name": "log", "image": {"id": "sha512-00"}});
    pod["apps"].as_array_mut().expect("a list").push(second);
    let apps = plan(&pod, &image()).expect("a plan").apps;
    let image_of = |index: usize| match apps[index].root {
        protocol::Root::Image { number, .. } => number,
        protocol::Root::Share(_) => unreachable!("no folder was prepared"),
    };
    assert_eq!((image_of(0), image_of(1)), (0, 1));
    let ports = |index: usize| ports_of(apps[index].stdio);
    assert_eq!(ports(0), [1024, 1025, 1026]);
    assert_eq!(ports(1), [1029, 1030]);
}

#[test]
fn plan_of_apps_that_share_a_name_or_the_input_is_refused() {
    let mut twins = pod();
    let first = twins["apps"][0].clone();
    twins["apps"].as_array_mut().expect("a list").push(first);
    let error = format!("{:#}", plan(&twins, &image()).expect_err("one name"));
    assert!(error.contains("two apps are called"), "{error}");
    twins["apps"][1]["name"] = json!("other");
    let error = format!("{:#}", plan(&twins, &image()).expect_err("one input"));
    assert!(error.contains("cannot all read"), "{error}");
}

#[test]
fn plan_of_event_handlers_has_their_commands_and_refuses_others() {
    let mut image = image();
    let handlers = |first: &str, second: &str| json!([{"name": first, "exec": ["/a"]}, {"name": second, "exec": ["/b", "c"]}]);
    image["app"]["eventHandlers"] = handlers("post-stop", "pre-start");
    let app = &plan(&pod(), &image).expect("a plan").apps[0];
    assert_eq!((app.pre_start.len(), app.post_stop.len()), (2, 1));
    for (first, second) in [("pre-start", "pre-start"), ("post-start", "post-stop")] {
        image["app"]["eventHandlers"] = handlers(first, second);
        assert!(plan(&pod(), &image).is_err(), "{first} {second}");
    }
}

#[test]
fn plan_of_an_app_that_fits_no_message_is_refused() {
    let long = "\u{1}".repeat(400 << 10);
    for (field, value) in [
        ("user", json!("x".repeat(5 << 20))),
        ("supplementaryGIDs", json!(vec![u32::MAX; 500_000])),
        ("environment", json!([{"name": "PATH", "value": long}])),
    ] {
        let mut image = image();
        image["app"][field] = value;
        let error = format!("{:#}", plan(&pod(), &image).expect_err("too long"));
        assert!(
            error.contains("more than can be passed"),
            "{field}: {error}"
        );
    }
}

proptest! {
    #[test]
    fn plan_of_manifests_with_faults_is_within_all_bounds(of_pod in json_faults(3), of_image in json_faults(3)) {
        let (mut pod, mut image) = (pod(), image());
        damage_json(&mut pod, &of_pod);
        damage_json(&mut image, &of_image);
        let Ok(plan) = plan(&pod, &image) else { return Ok(()) };
        let (start, most) = (plan.growth.start, plan.growth.most);
        prop_assert!(1 <= start.cpus && start.cpus <= most.cpus && most.cpus <= 32);
        prop_assert!(72 <= start.memory_mib && start.memory_mib <= most.memory_mib && most.memory_mib <= 512 << 10);
        prop_assert!(plan.scratch_bytes.is_none_or(|bytes| bytes.is_multiple_of(4096) && bytes <= 4 << 40));
        for app in plan.apps {
            prop_assert!(!app.exec.is_empty() && app.working_directory.starts_with('/'));
            prop_assert!(contract::name::is_ac_name(&app.name));
            prop_assert!(app.environment.iter().all(|(name, value)| !name.contains(['=', '\0']) && !value.contains('\0')));
            let message = serde_json::to_vec(&ToGuest::Start { task: 0, app: Box::new(app) }).expect("JSON");
            prop_assert!(message.len() <= MAX_MESSAGE_BYTES as usize);
        }
    }
}

//! What an image of docker's says about its app, as buildah writes it: in the manifest of a pod, and in an image that goes out again.

use serde_json::{Value, json};

use crate::recorder::{Host, RECORD};
use crate::registry::{Guard, Registry};

/// An archive of an image with every item that matters when it runs, or is built upon.
const BUILD: &str = r#"set -e
    storage="--root=$PWD/storage --runroot=$PWD/run --storage-driver=vfs"
    container=$(buildah $storage from scratch)
    buildah $storage add -q "$container" "$2"
    buildah $storage config --entrypoint '["/bin/app","first"]' --cmd 'second third' --env A=b --env PATH=/bin \
        --user 7:8 --volume /data --volume /var/log --stop-signal SIGQUIT --port 53/tcp --port 53/udp \
        --workingdir /srv --label Team=a --label org.example.note=text --author me --shell '/bin/app -c' \
        --onbuild 'RUN make' --healthcheck 'CMD /bin/app health' --healthcheck-interval 5s "$container" 2>/dev/null
    buildah $storage commit -q --format docker "$container" localhost/tool:1
    buildah $storage push -q localhost/tool:1 docker-archive:tool.tar:localhost/tool:1"#;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A host that has the image, and the configuration that buildah wrote.
fn host() -> (Host, Value) {
    let (host, builder) = (Host::new(RECORD), Registry::new(Guard::None));
    let tar = host.path("image.tar");
    let words = ["bash", "-c", BUILD, "bash", ""];
    builder.run(&[&words[..], &[tar.to_str().expect("text")]].concat());
    let archive = builder.path("tool.tar");
    host.stdout(&["image", "import", archive.to_str().expect("text")]);
    let from = format!("docker-archive:{}", archive.display());
    let config = builder.run(&["skopeo", "inspect", "--config", "--raw", &from]);
    (host, parsed(&config)["config"].clone())
}

/// The only app of a pod that was prepared so.
fn prepared(host: &Host, flags: &[&str]) -> Value {
    let stage1 = format!("--stage1={}", host.path("stage1").display());
    let words = [&["prepare", &stage1, "localhost/tool:1"], flags].concat();
    let uuid = host.stdout(&words);
    let pod = parsed(&host.stdout(&["cat-manifest", uuid.trim()]));
    host.stdout(&["rm", uuid.trim()]);
    pod["apps"][0].clone()
}

fn annotation(app: &Value, name: &str) -> Value {
    let list = app["annotations"].as_array().expect("annotations");
    let mut found = list.iter().filter(|found| found["name"] == name);
    let value = found.next().map_or(Value::Null, |it| it["value"].clone());
    assert!(found.next().is_none(), "{name} is there twice");
    value
}

#[test]
fn what_matters_at_run_time_reaches_the_pods_manifest() {
    let (host, _) = host();
    let app = prepared(&host, &[]);
    let expected = json!({
        "exec": ["/bin/app", "first", "second", "third"],
        "user": "7",
        "group": "8",
        "workingDirectory": "/srv",
        "environment": [{"name": "A", "value": "b"}, {"name": "PATH", "value": "/bin"}],
        "mountPoints": [
            {"name": "volume-data", "path": "/data", "readOnly": false},
            {"name": "volume-var-log", "path": "/var/log", "readOnly": false}
        ],
        "ports": [
            {"name": "53-tcp", "protocol": "tcp", "port": 53, "count": 1, "socketActivated": false},
            {"name": "53-udp", "protocol": "udp", "port": 53, "count": 1, "socketActivated": false}
        ],
        "userLabels": {"Team": "a", "org.example.note": "text", "io.buildah.version": app["app"]["userLabels"]["io.buildah.version"]}
    });
    assert_eq!(app["app"], expected);
    assert_eq!(annotation(&app, "appc.io/docker/stopsignal"), "SIGQUIT");
    let check = annotation(&app, "appc.io/docker/healthcheck");
    let check = parsed(check.as_str().expect("text"));
    assert_eq!(check["Test"], json!(["CMD", "/bin/app", "health"]));
    assert_eq!(check["Interval"], 5_000_000_000_u64);
}

#[test]
fn command_line_says_more_than_the_image() {
    let (host, _) = host();
    let flags = [
        "--stop-signal=SIGINT",
        "--annotation=appc.io/docker/healthcheck={}",
        "--user=9",
        "--user-label=Team=b",
        "--",
        "fourth",
    ];
    let app = prepared(&host, &flags);
    assert_eq!(app["app"]["exec"], json!(["/bin/app", "first", "fourth"]));
    assert_eq!(app["app"]["userLabels"]["Team"], "b");
    assert_eq!(app["app"]["userLabels"]["org.example.note"], "text");
    assert_eq!(annotation(&app, "appc.io/docker/healthcheck"), "{}");
    let signal = annotation(&app, "appc.io/docker/stopsignal");
    assert!(signal == "SIGINT" || signal == "2", "{signal}");
}

#[test]
fn configuration_that_buildah_wrote_comes_out_again() {
    let (host, before) = host();
    let out = host.path("out.tar");
    let out = out.to_str().expect("text");
    host.stdout(&[
        "image",
        "export",
        "--format=docker-archive",
        "localhost/tool:1",
        out,
    ]);
    let mut skopeo = std::process::Command::new("skopeo");
    let from = format!("docker-archive:{out}");
    let skopeo = skopeo
        .args(["inspect", "--config", "--raw", &from])
        .output();
    let after = skopeo.expect("skopeo starts").stdout;
    let after = parsed(&String::from_utf8(after).expect("text"))["config"].clone();
    for field in [
        "Entrypoint",
        "Cmd",
        "Env",
        "User",
        "Volumes",
        "StopSignal",
        "ExposedPorts",
        "WorkingDir",
        "Labels",
        "Shell",
        "OnBuild",
        "Healthcheck",
    ] {
        assert!(!before[field].is_null(), "{field}");
        assert_eq!(after[field], before[field], "{field}");
    }
}

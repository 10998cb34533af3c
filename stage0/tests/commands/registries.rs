//! Images of registries: pulled, pushed, looked for; with the registry that Debian has, and other programs' images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use image::oci::{Algorithm, Digest};

use crate::recorder::{Host, RECORD, refused};
use crate::registry::{Guard, LOGIN, Layout, Registry};

/// An image of two layers, which says in its Cmd what it is for.
fn small(host: &Host, name: &str) -> PathBuf {
    let layout = Layout::new(host.path(name));
    let image = layout.image("amd64", &[("a", b"below"), ("b", name.as_bytes())]);
    layout.of(&image)
}

pub fn pull(host: &Host, name: &str) -> String {
    host.stdout(&["image", "pull", name]).trim().to_owned()
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("a name of ours")
}

#[test]
fn image_of_each_builder_is_pulled_and_pushed_back() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let layout = small(&host, "tool");
    registry.push(&layout, "by/skopeo");
    let tar = host.path("image.tar");
    let script = r#"set -e
        storage="--root=$PWD/storage --runroot=$PWD/run --storage-driver=vfs"
        podman $storage import -q "$2" localhost/x && podman $storage push -q --tls-verify=false localhost/x "$1/by/podman"
        container=$(buildah $storage from scratch) && buildah $storage add -q "$container" "$2" &&
        buildah $storage commit -q "$container" localhost/y && buildah $storage push -q --tls-verify=false localhost/y "$1/by/buildah""#;
    registry.run(&["bash", "-c", script, "bash", &registry.host, text(&tar)]);
    let from = format!("oci:{}", layout.display());
    let to = format!("docker://{}", registry.name("by/docker"));
    let plain = "--dest-tls-verify=false";
    registry.run(&["skopeo", "copy", "-q", "--format=v2s2", plain, &from, &to]);
    for builder in ["skopeo", "podman", "buildah", "docker"] {
        let name = registry.name(&format!("by/{builder}"));
        let id = pull(&host, &name);
        assert_eq!(pull(&host, &format!("docker://{name}:latest")), id);
        let back = registry.name(&format!("back/{builder}:1"));
        let digest = host.stdout(&["image", "push", &name, &back]);
        let seen = registry.run(&[
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--format={{.Digest}}",
            &format!("docker://{back}"),
        ]);
        assert_eq!(seen, digest);
    }
    // The way that an image takes changes nothing of it.
    let name = registry.name("by/skopeo:latest");
    let imported = host.stdout(&["image", "import", "--name", &name, text(&layout)]);
    assert_eq!(imported.trim(), pull(&host, &name));
    assert_eq!(
        fs::read_dir(host.path("data/store/tmp"))
            .expect("a folder")
            .count(),
        0
    );
}

#[test]
fn index_of_two_architectures_in_zstd_gives_this_hosts_image() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let layout = Layout::new(host.path("layout"));
    let zstd = |layer: &[u8]| zstd::encode_all(layer, 0).expect("memory");
    let images = ["arm64", "amd64"]
        .map(|name| layout.packed(name, &[("a", name.as_bytes())], "+zstd", zstd));
    let index = layout.index(&images);
    let from = format!("oci:{}", layout.of(&index).display());
    let to = format!("docker://{}", registry.name("multi"));
    let flags = [
        "--all",
        "--preserve-digests",
        "--dest-tls-verify=false",
        "-q",
    ];
    registry.run(&[&["skopeo", "copy"], &flags[..], &[&from, &to]].concat());
    let id = pull(&host, &registry.name("multi"));
    let top = registry.run(&[
        "skopeo",
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{}", registry.name("multi")),
    ]);
    let digest = Digest::of(Algorithm::Sha256, top.as_bytes());
    let by_digest = format!("docker://{}@{digest}", registry.name("multi"));
    assert_eq!(pull(&host, &by_digest), id);
    let never = ["image", "pull", "--pull-policy=never", &by_digest];
    assert_eq!(host.stdout(&never).trim(), id);
    let manifest = host.stdout(&["image", "cat-manifest", &id]);
    assert!(
        manifest.contains("\"amd64\"") && !manifest.contains("arm64"),
        "{manifest}"
    );
    assert_eq!(
        registry.blobs_asked_for().len(),
        2,
        "{:?}",
        registry.blobs_asked_for()
    );
}

#[test]
fn guarded_registry_lets_in_who_has_certificate_and_password() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::Everything));
    let layout = small(&host, "tool");
    let (from, to) = (format!("oci:{}", layout.display()), registry.name("tool"));
    let certs = registry.path("certs");
    let for_skopeo = format!("--dest-cert-dir={}", certs.display());
    registry.run(&[
        "skopeo",
        "copy",
        "-q",
        &for_skopeo,
        "--dest-creds",
        LOGIN,
        &from,
        &format!("docker://{to}"),
    ]);

    let certs = format!("--cert-dir={}", certs.display());
    let bare = host.output(&["image", "pull", &to]);
    refused(&bare, "is not trusted");
    refused(
        &host.output(&["image", "pull", &to, &certs]),
        "UNAUTHORIZED",
    );
    let wrong = host.output(&["image", "pull", &to, &certs, "--creds=user:guess"]);
    refused(&wrong, "--creds");
    assert!(!String::from_utf8_lossy(&wrong.stderr).contains("guess"));
    let self_certs = format!("--cert-dir={}", registry.path("self-certs").display());
    refused(
        &host.output(&["image", "pull", &to, &self_certs, "--creds", LOGIN]),
        "is not trusted",
    );

    let id = host.stdout(&["image", "pull", &to, &certs, "--creds", LOGIN]);
    let back = registry.name("back");
    host.stdout(&["image", "push", &certs, "--creds", LOGIN, id.trim(), &back]);

    let authfile = registry.path("auth.json");
    let login = [
        "skopeo",
        "login",
        "--authfile",
        text(&authfile),
        &certs,
        "-u",
        "user",
        "-p",
        "secret",
        &registry.host,
    ];
    registry.run(&login);
    for image in [&to, &back] {
        host.stdout(&[
            "image",
            "pull",
            image,
            &certs,
            "--authfile",
            text(&authfile),
        ]);
    }
    assert!(
        host.command(&["image", "pull", &to, &certs])
            .env("REGISTRY_AUTH_FILE", &authfile)
            .status()
            .expect("fairing starts")
            .success()
    );
    // What is said for a registry its mirrors do not hear.
    let conf = format!(
        "[[registry]]\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"{}\"",
        registry.host
    );
    let pull = ["image", "pull", "docker://127.0.0.1:1/tool", &certs];
    let with_creds = [&pull[..], &["--creds", LOGIN]].concat();
    refused(
        &configured(&host, &conf, &with_creds)
            .output()
            .expect("fairing starts"),
        "UNAUTHORIZED",
    );
    let mut with_file = configured(&host, &conf, &pull);
    with_file.env("REGISTRY_AUTH_FILE", &authfile);
    assert!(with_file.status().expect("fairing starts").success());
}

#[test]
fn credential_helper_is_asked_for_the_password() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::Everything));
    let helper = host.path("docker-credential-test");
    let script = "#!/bin/sh\nread -r server || :\ncase $1-$server in\nget-127.0.0.1:*) echo '{\"Username\":\"user\",\"Secret\":\"secret\"}' ;;\n*) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n";
    fs::write(&helper, script).expect("a helper");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("a mode");
    let certs = format!("--cert-dir={}", registry.path("certs").display());
    let path = format!(
        "{}:{}",
        host.path(".").display(),
        std::env::var("PATH").expect("a PATH")
    );
    for config in [
        r#"{"credsStore":"test"}"#.to_owned(),
        format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host),
    ] {
        fs::write(host.path("config.json"), config).expect("a configuration");
        let missing = host
            .command(&["image", "pull", &registry.name("missing"), &certs])
            .env("DOCKER_CONFIG", host.path("."))
            .env("PATH", &path)
            .output()
            .expect("fairing starts");
        refused(&missing, "MANIFEST_UNKNOWN");
    }
}

#[test]
fn registry_that_vouches_for_itself_is_trusted_by_its_own_certificate_or_by_none() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::SelfSigned));
    let layout = small(&host, "tool");
    registry.push(&layout, "tool");
    let name = registry.name("tool");
    refused(&host.output(&["image", "pull", &name]), "is not trusted");
    let certs = format!("--cert-dir={}", registry.path("self-certs").display());
    host.stdout(&["image", "pull", &name, &certs]);
    host.stdout(&["image", "pull", &name, "--tls-verify=false"]);
    host.stdout(&["--insecure-options=tls", "image", "pull", &name]);
}

#[test]
fn plain_text_is_spoken_on_loopback_unless_it_is_forbidden() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    registry.push(&small(&host, "tool"), "tool");
    let name = registry.name("tool");
    refused(
        &host.output(&["image", "pull", &name, "--tls-verify"]),
        "ask for",
    );
    pull(&host, &name);
}

/// The host's registries.conf for one command.
fn configured(host: &Host, conf: &str, words: &[&str]) -> Command {
    let path = host.path("registries.conf");
    fs::write(&path, conf).expect("a configuration");
    let mut command = host.command(words);
    command.env("CONTAINERS_REGISTRIES_CONF", path);
    command
}

#[test]
fn name_that_the_store_lacks_is_looked_for_as_registries_conf_says() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    registry.push(&small(&host, "tool"), "tool:2");
    let (stage1, there) = (host.path("stage1"), &registry.host);
    // Nobody listens on the first.
    for (conf, word) in [
        (
            format!("unqualified-search-registries = [\"127.0.0.1:1\", \"{there}\"]"),
            "tool:2",
        ),
        (format!("[aliases]\nshort = \"{there}/tool\""), "short:2"),
        (
            format!("[[registry]]\nprefix = \"registry.invalid/x\"\nlocation = \"{there}\""),
            "registry.invalid/x/tool:2",
        ),
        (
            format!(
                "[[registry]]\nlocation = \"127.0.0.1:1\"\n[[registry.mirror]]\nlocation = \"{there}\""
            ),
            "docker://127.0.0.1:1/tool:2",
        ),
    ] {
        let words = ["run", "--stage1", text(&stage1), word];
        let status = configured(&host, &conf, &words)
            .status()
            .expect("fairing starts");
        assert_eq!(status.code(), Some(42), "{word}");
    }
    let conf = "unqualified-search-registries = [\"127.0.0.1:1\", \"127.0.0.1:2\"]";
    let words = ["run", "--stage1", text(&stage1), "missing"];
    let tried = configured(&host, conf, &words)
        .output()
        .expect("fairing starts");
    for name in [
        "127.0.0.1:1/missing:latest",
        "127.0.0.1:2/missing:latest",
        "refused",
    ] {
        refused(&tried, name);
    }
    let none = configured(&host, "unqualified-search-registries = []", &words).output();
    refused(
        &none.expect("fairing starts"),
        "neither a path nor an image of the store",
    );
    let conf = "[[registry]]\nlocation = \"127.0.0.1:1\"\nblocked = true";
    let blocked = configured(&host, conf, &["image", "pull", "127.0.0.1:1/x"]).output();
    refused(&blocked.expect("fairing starts"), "is blocked");
}

#[test]
fn digest_means_the_same_image_after_its_tag_has_moved() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    let tag = registry.name("tool:1");
    let digest = |registry: &Registry| {
        let image = format!("docker://{tag}");
        let words = [
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--format={{.Digest}}",
        ];
        registry
            .run(&[&words[..], &[&image]].concat())
            .trim()
            .to_owned()
    };
    registry.push(&small(&host, "old"), "tool:1");
    let (first, old) = (digest(&registry), pull(&host, &tag));
    let pushed = host.stdout(&["image", "push", &old, &registry.name("pushed:1")]);
    registry.push(&small(&host, "new"), "tool:1");
    let second = digest(&registry);
    let new = pull(&host, &format!("docker://{tag}"));
    assert_ne!((&first, &old), (&second, &new));
    host.stdout(&["image", "rm", &old, &new]);
    let at = |digest: &str| format!("docker://{}@{digest}", registry.name("tool"));
    assert_eq!(pull(&host, &at(&first)), old);
    assert_eq!(pull(&host, &at(&second)), new);
    // The tag beside a digest is for people.
    assert_eq!(pull(&host, &format!("{tag}@{first}")), old);

    // What is sent by its digest must have that one.
    let by_digest = format!("{}@{}", registry.name("pushed"), pushed.trim());
    assert_eq!(host.stdout(&["image", "push", &old, &by_digest]), pushed);
    let other = format!("{}@{second}", registry.name("pushed"));
    refused(&host.output(&["image", "push", &old, &other]), "digest is");
}

#[test]
fn pull_policy_says_when_the_registry_is_asked() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    registry.push(&small(&host, "old"), "tool");
    let (name, stage1) = (registry.name("tool"), host.path("stage1"));
    let run = |policy: &str| {
        let policy = format!("--pull-policy={policy}");
        host.output(&["run", "--stage1", text(&stage1), &policy, &name])
    };
    refused(&run("never"), "--pull-policy=never");
    assert_eq!(run("new").status.code(), Some(42));
    let asked = registry.requests().len();
    registry.push(&small(&host, "new"), "tool");
    for policy in ["new", "never"] {
        assert_eq!(run(policy).status.code(), Some(42));
    }
    assert_eq!(registry.requests().len(), asked);
    let names = |host: &Host| host.stdout(&["image", "list", "--format=json"]);
    assert_eq!(names(&host).matches("\"id\"").count(), 1);
    for _ in 0..2 {
        assert_eq!(run("update").status.code(), Some(42));
        assert_eq!(names(&host).matches("\"id\"").count(), 2);
    }
    let blobs = registry.blobs_asked_for();
    assert!(blobs.values().all(|count| *count == 1), "{blobs:?}");
}

#[test]
fn proxy_of_the_environment_is_used() {
    let (host, registry) = (Host::new(RECORD), Registry::new(Guard::None));
    registry.push(&small(&host, "tool"), "tool");
    let proxy = format!("http://{}", registry.host);
    let words = [
        "image",
        "pull",
        "--tls-verify=false",
        "registry.invalid/tool",
    ];
    for (excepted, found) in [("", true), ("registry.invalid", false)] {
        let mut command = host.command(&words);
        command.env("HTTP_PROXY", &proxy).env("http_proxy", &proxy);
        let output = command
            .env("NO_PROXY", excepted)
            .env("no_proxy", excepted)
            .output();
        assert_eq!(output.expect("fairing starts").status.success(), found);
    }
}

//! Images of a registry in pods: pushed there by the programs that others use, pulled and run here, and the other way
//! round.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::mounted::Mounted;
use tests::registry::{LOGIN, Registry};
use tests::{
    Finished, checkout, fairing, fairing_in, finish, finish_within, proved, rounds, tell,
    temporary, test_image,
};

/// What the image `layers` shows of itself.
const LOOK: &str = "cat /data/kept; ls /data; ls /opaque; readlink /linked";
const LOOKED: &str = "lower\nkept\nnew\nreal\n";

/// A pod of an image that is not here yet.
fn look(image: &str, flags: &[&str]) -> Finished {
    let mut command = fairing();
    command.args(["run", "--rm", "--entrypoint=/bin/sh"]);
    command.args(flags).arg(image);
    finish(command.args(["--", "-c", &proved(LOOK)]))
}

#[track_caller]
fn is_layers(finished: Finished) {
    let finished = finished.expect_code(0);
    assert_eq!(finished.out(), LOOKED, "{}", finished.err());
}

#[test]
fn image_that_each_builder_has_pushed_runs() {
    let registry = Registry::open();
    let layers = test_image("layers");
    registry.push(&layers, "latest", "by/skopeo");
    let from = format!("oci:{}:latest", layers.display());
    let storage = registry.builders_image("localhost/layers");
    registry.tool(&["skopeo", "copy", "--quiet", &from, &storage]);
    // Each takes half a minute, emulated; that they can be pulled is seen without a machine, too.
    let others = ["podman", "buildah"];
    let others = &others[..rounds("builders beside skopeo", 0, 2)];
    for program in others {
        let to = registry.url(&format!("by/{program}"));
        registry.builder(
            program,
            &["push", "-q", "--tls-verify=false", "localhost/layers", &to],
        );
    }
    for program in [&["skopeo"], others].concat() {
        let name = format!("{}/by/{program}", registry.host);
        is_layers(look(&name, &[]));
    }
    // Without a registry, too, from where podman keeps it.
    is_layers(look(&storage, &[]));
}

#[test]
fn pull_policy_says_when_the_registry_is_asked() {
    let registry = Registry::open();
    let url = registry.url("changing");
    let refused = look(&url, &["--pull-policy=never"]).expect_code(254);
    assert!(refused.err().contains("never"), "{}", refused.err());
    registry.push(&test_image("layers"), "latest", "changing");
    is_layers(look(&url, &[]));
    registry.push(&test_image("busybox"), "latest", "changing");
    is_layers(look(&url, &[]));
    is_layers(look(&url, &["--pull-policy=never"]));
    let other = look(&url, &["--pull-policy=update"]);
    assert!(other.err().contains("/data/kept"), "{}", other.err());
}

#[test]
fn image_behind_tls_and_a_password_runs() {
    let registry = Registry::guarded();
    let certs = registry.path("certs").display().to_string();
    let layers = format!("oci:{}:latest", test_image("layers").display());
    let (copy, url) = (["skopeo", "copy", "--quiet"], registry.url("guarded"));
    let certificates = format!("--dest-cert-dir={certs}");
    let flags = [&certificates, "--dest-creds", LOGIN, &layers, &url];
    registry.tool(&[&copy[..], &flags[..]].concat());
    let certs = format!("--cert-dir={certs}");
    look(&url, &[]).expect_code(254);
    let stranger = look(&url, &[&certs]).expect_code(254);
    assert!(
        stranger.err().contains("UNAUTHORIZED"),
        "{}",
        stranger.err()
    );
    is_layers(look(&url, &[&certs, &format!("--creds={LOGIN}")]));
}

/// The image of a layout in an index of two architectures, recompressed, in the folder of `registry`.
#[track_caller]
fn multi_arch(registry: &Registry, layout: &str) -> PathBuf {
    let script = checkout().join("scripts/multi-arch");
    let out = registry.path("multi");
    let words = [script.to_str(), Some(layout), out.to_str()];
    registry.tool(&words.map(|word| word.expect("a path of text")));
    out
}

#[test]
fn entry_for_this_host_is_chosen_from_an_index_and_runs() {
    let registry = Registry::open();
    let layers = format!("{}:latest", test_image("layers").display());
    let multi = multi_arch(&registry, &layers);
    registry.push(&multi, "latest", "multi");
    is_layers(look(&registry.url("multi"), &[]));
    let read = |path: PathBuf| -> Value {
        let text = std::fs::read_to_string(path).expect("a document");
        serde_json::from_str(&text).expect("JSON")
    };
    let digest = |entry: &Value| entry["digest"].as_str().expect("a digest").to_owned();
    let top = digest(&read(multi.join("index.json"))["manifests"][0]);
    let index = read(multi.join("blobs").join(top.replace(':', "/")));
    let [other, own] = [0, 1].map(|at| digest(&index["manifests"][at]));
    assert!(registry.was_asked_for(&own) && !registry.was_asked_for(&other));
}

#[test]
fn image_that_is_pushed_from_here_has_the_same_files_for_podman() {
    for _ in 0..rounds("images pushed from here and mounted by podman", 0, 1) {
        let folder = temporary("fairing-pushed-");
        let disk = Mounted::ext4(folder.path(), "disk");
        let registry = Registry::below(disk.path());
        let store = registry.path("store");
        let run = |words: &[&str]| finish(fairing_in(&store).args(words)).expect_code(0);
        let image = test_image("odd");
        run(&[
            "image",
            "import",
            "--name=odd",
            image.to_str().expect("text"),
        ]);
        let name = format!("{}/from/here", registry.host);
        run(&["image", "push", "odd", &name]);
        registry.builder("podman", &["pull", "-q", "--tls-verify=false", &name]);
        let theirs = registry.builder("podman", &["image", "mount", &name]).out();
        let ours = registry.path("ours");
        run(&["image", "render", "odd", ours.to_str().expect("text")]);
        let mut compare = Command::new(env!("CARGO_BIN_EXE_compare_trees"));
        compare.arg(ours).arg(theirs.trim());
        // podman's own are the time of the root, and that of what is older than 1970.
        let compared = finish(compare.args(["--ignore-time-of", "", "odd/1960"]));
        registry.builder("podman", &["image", "umount", &name]);
        let told: String = compared.out().chars().take(2000).collect();
        assert_eq!(compared.code, 0, "{told}");
    }
}

/// How long pulls of hundreds of megabytes may take, emulated.
const HOURS: Duration = Duration::from_secs(3 * 3600);

/// What is in the layers of the stack: a database answers, Node and a JVM run programs.
const STACK: &str = "set -e; node -e 'console.log(6 * 7)'; \
    keytool -genkeypair -alias a -keyalg EC -dname CN=a -storepass secret -keystore /tmp/keys 2>/dev/null; \
    keytool -list -storepass secret -keystore /tmp/keys 2>/dev/null | grep -c PrivateKeyEntry; \
    export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin); mkdir /tmp/pg; chown postgres /tmp/pg; \
    as() { setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"; }; \
    as initdb --no-sync -D /tmp/pg/data >/dev/null; as pg_ctl -s -w -t 200 -D /tmp/pg/data -l /tmp/pg/log -o '-k /tmp' start >/dev/null; \
    psql -U postgres -h /tmp -d postgres -tAc 'select 6 * 7'; as pg_ctl -s -m fast -D /tmp/pg/data stop";

/// Four layers, 280 MiB, in gzip, and in zstd behind an index. The short run's is `layers`, of one MiB.
#[test]
fn database_and_runtimes_of_real_layers_run() {
    for _ in 0..rounds("pulls of real layers", 0, 1) {
        let stack = PathBuf::from(
            std::env::var_os("FAIRING_TEST_STACK").expect("run scripts/system-tests"),
        );
        // That of an emulated host has room for what is large.
        let registry = Registry::below(&std::env::temp_dir());
        registry.push(&stack, "jdk", "stack");
        let multi = multi_arch(&registry, &format!("{}:jdk", stack.display()));
        registry.push(&multi, "latest", "zstd");
        for name in ["stack", "zstd"] {
            let store = registry.path(name);
            let begun = std::time::Instant::now();
            let mut pull = fairing_in(&store);
            finish_within(HOURS, pull.args(["image", "pull", &registry.url(name)])).expect_code(0);
            tell(&format!(
                "{name}: pulled in {} s",
                begun.elapsed().as_secs()
            ));
            let mut pod = fairing_in(&store);
            pod.args(["run", "--rm", "--memory=700Mi", &registry.url(name)]);
            pod.args(["--", "/bin/sh", "-c", &proved(STACK)]);
            let finished = finish_within(HOURS, &mut pod).expect_code(0);
            assert_eq!(finished.out(), "42\n1\n42\n", "{}", finished.err());
        }
    }
}

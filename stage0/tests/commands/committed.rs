//! Images of the files of pods that have ended, which a stage 1 of a few lines of shell sends as it is told to.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use archive::{Kind, Xattrs};
use serde_json::{Value, json};

use crate::exported::{append, layout, parsed, run, text, unpacked};
use crate::recorder::{Host, until};

/// Runs no app, but leaves what one leaves; sends the tree where it is to run a program of the machine's own.
const SENDER: &str = r#"#!/bin/sh
echo $$ >pid
if grep -q fairing/built-in pod; then cat "$TREE"; exit ${SENDER_STATUS:-0}; fi
: >scratch.ext4
for app in appsinfo/*; do
    status=stage1/rootfs/rkt/status/${app#*/}
    echo 0 >"$status"
    touch -d 2026-01-02T03:04:05.5Z "$status"
done
"#;

/// What the image is called that pods here run from.
const BASE: &str = "example.com/tool:1";

/// A host with that image, as umoci makes it, and a pod of it that has ended; and its UUID.
fn host() -> (Host, String) {
    let host = Host::new(SENDER);
    host.entrypoint("serve", "#!/bin/sh\nexit 1\n");
    host.manifest(&["run"]);
    let path = host.path("stage1/manifest");
    let manifest = fs::read_to_string(&path).expect("a manifest");
    let serve = r#""annotations":[{"name":"fairing/stage1/serve","value":"/serve"},"#;
    fs::write(&path, manifest.replace(r#""annotations":["#, serve)).expect("a manifest");
    let layout = layout(&host);
    host.stdout(&["image", "import", &layout]);
    let uuid = ended(&host, &[BASE]);
    (host, uuid)
}

/// A pod of these words that has ended.
fn ended(host: &Host, words: &[&str]) -> String {
    let stage1 = format!("--stage1={}", text(&host.path("stage1")));
    let file = host.path("uuid");
    let save = format!("--uuid-file-save={}", text(&file));
    host.stdout(&[&["run", &stage1, &save], words].concat());
    fs::read_to_string(file).expect("a UUID").trim().to_owned()
}

fn commit(host: &Host, words: &[&str]) -> Command {
    let mut commit = host.command(&[&["commit"], words].concat());
    commit.env("TREE", host.path("tree"));
    commit
}

/// The id of the image that `fairing commit` makes with these words.
#[track_caller]
fn committed(host: &Host, words: &[&str]) -> String {
    run(&mut commit(host, words)).trim().to_owned()
}

#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = command.output().expect("fairing starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(254), "{told}");
    told
}

/// What the machine sends of an app that has changed its files in these ways.
struct Tree(tar::Builder<File>);

impl Tree {
    fn new(path: &Path) -> Self {
        Self(tar::Builder::new(File::create(path).expect("a file")))
    }

    fn put(&mut self, path: &str, kind: Kind<'_>, mode: u32, content: &[u8]) {
        let mut xattrs = Xattrs::new();
        if path == "rootfs/bin/app" {
            xattrs.insert(b"user.note".to_vec(), b"kept".to_vec());
        }
        append(&mut self.0, path, kind, mode, &xattrs, content);
    }
}

/// The files of the image, a new one, another name for one, one changed, one gone.
fn tree(host: &Host) {
    let mut tree = Tree::new(&host.path("tree"));
    tree.put("rootfs", Kind::Directory, 0o755, b"");
    tree.put("rootfs/bin", Kind::Directory, 0o755, b"");
    tree.put("rootfs/bin/also", Kind::File(3), 0o4755, b"app");
    tree.put("rootfs/bin/new", Kind::File(3), 0o755, b"new");
    tree.put(
        "rootfs/bin/twin",
        Kind::HardLink(b"rootfs/bin/new"),
        0o755,
        b"",
    );
    tree.put("rootfs/data", Kind::Directory, 0o1777, b"");
    tree.put("rootfs/data/hole", Kind::File(1 << 20), 0o600, b"begin");
    tree.put("rootfs/data/upper", Kind::File(7), 0o644, b"changed");
    tree.0.finish().expect("a tar");
}

/// What is in the store, byte by byte of its names.
fn store(host: &Host) -> String {
    let list = "find . ! -path ./tmp ! -name record.json -printf '%P %s\\n' | sort";
    run(Command::new("sh")
        .args(["-c", list])
        .current_dir(host.path("data/store")))
}

#[test]
fn commit_is_the_image_with_what_the_app_has_left_and_changed() {
    let (host, uuid) = host();
    tree(&host);
    let words = [
        "--change=CMD [\"third\"]",
        "--change=ENV A=new",
        "--change=ENV B=2",
        "--change=LABEL org.example.more=x",
        "--change=USER 9",
        "-c=WORKDIR sub",
        "--author=you",
        "--message=a word",
        &uuid[..8],
        "example.com/new:2",
    ];
    let id = committed(&host, &words);
    assert!(id.starts_with("sha512-"), "{id}");
    let folder = text(&host.path("out")).to_owned();
    host.stdout(&[
        "image",
        "export",
        "--format=oci",
        "example.com/new:2",
        &folder,
    ]);
    let image = format!("oci:{folder}:example.com/new:2");
    let config = parsed(&run(
        Command::new("skopeo").args(["inspect", "--config", &image])
    ));
    let of_config = |name: &str| config["config"][name].clone();
    assert_eq!(of_config("Entrypoint"), json!(["/bin/app", "first"]));
    assert_eq!(of_config("Cmd"), json!(["third"]));
    let variables = of_config("Env");
    let variables = variables.as_array().expect("variables");
    assert!(variables.contains(&json!("A=new")) && variables.contains(&json!("B=2")));
    assert!(!variables.contains(&json!("A=b c")), "{variables:?}");
    let labels = json!({"org.example.note": "text", "org.example.more": "x"});
    assert_eq!(of_config("Labels"), labels);
    assert_eq!(
        (of_config("User"), of_config("WorkingDir")),
        (json!("9"), json!("/data/sub"))
    );
    assert_eq!(
        (of_config("StopSignal"), of_config("Volumes")),
        (json!("SIGINT"), json!({"/data": {}}))
    );
    assert_eq!(
        (&config["author"], &config["created"]),
        (&json!("you"), &json!("2026-01-02T03:04:05.5Z"))
    );
    let history = config["history"].as_array().expect("a history");
    let last = history.last().expect("a step");
    assert_eq!(
        (&last["comment"], &last["created_by"]),
        (&json!("a word"), &json!("fairing commit"))
    );
    let is_layer = |step: &&Value| step["empty_layer"] != json!(true);
    assert_eq!(history.iter().filter(is_layer).count(), 1, "{history:?}");

    let listed = unpacked(&host, &folder, "example.com/new:2");
    for (name, is_there) in [
        ("bin/app", false),
        ("bin/also", true),
        ("bin/twin", true),
        ("data/upper", true),
    ] {
        assert_eq!(
            listed
                .lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            is_there,
            "{listed}"
        );
    }
    assert!(
        listed.contains("bin/twin f 755 3 2 "),
        "two names of one file: {listed}"
    );
    let rendered = host.path("rendered");
    host.stdout(&["image", "render", "example.com/new:2", text(&rendered)]);
    assert_eq!(
        fs::read(rendered.join("data/upper")).expect("a file"),
        b"changed"
    );
    let hole = fs::read(rendered.join("data/hole")).expect("a file");
    assert_eq!((hole.len(), &hole[..5]), (1 << 20, &b"begin"[..]));
}

#[test]
fn commit_of_the_same_files_is_the_same_image_and_another_word_makes_another() {
    let (host, uuid) = host();
    tree(&host);
    let first = committed(&host, &[&uuid, "a"]);
    let before = store(&host);
    assert_eq!(committed(&host, &[&uuid, "a"]), first);
    assert_eq!(store(&host), before);
    // Of another pod, whose app ended at the same moment.
    let other = ended(&host, &[BASE]);
    assert_eq!(committed(&host, &[&format!("{other}:tool"), "b"]), first);
    let told = host.stdout(&["image", "inspect", "--format=json", &first]);
    assert_eq!(parsed(&told)["names"], json!(["a", "b"]));
    let mut others = [
        committed(&host, &["--message=x", &uuid]),
        committed(&host, &["--change=USER 7", &uuid]),
        committed(&host, &["--squash", &uuid]),
        first,
    ];
    others.sort();
    assert!(
        others.windows(2).all(|pair| pair[0] != pair[1]),
        "{others:?}"
    );
    let json = run(&mut commit(&host, &["--format=json", &uuid, "a"]));
    assert_eq!(parsed(&json)["kind"], json!("oci"));
}

#[test]
fn commit_of_a_commit_has_both_in_it_and_is_loaded_by_podman() {
    let (host, uuid) = host();
    tree(&host);
    let first = committed(
        &host,
        &[
            "--change=ENV ONE=1",
            "--message=one",
            &uuid,
            "example.com/first:1",
        ],
    );
    let uuid = ended(&host, &["example.com/first:1"]);
    let mut tree = Tree::new(&host.path("tree"));
    tree.put("rootfs", Kind::Directory, 0o755, b"");
    tree.put("rootfs/only", Kind::File(4), 0o644, b"only");
    tree.0.finish().expect("a tar");
    let second = committed(
        &host,
        &[
            "--change=ENV TWO=2",
            "--message=two",
            &uuid,
            "example.com/second:1",
        ],
    );
    assert_ne!(first, second);
    // What it was made of may go.
    host.stdout(&["image", "rm", "--force", &first]);
    host.stdout(&["image", "verify", &second]);
    let archive = text(&host.path("second.tar")).to_owned();
    host.stdout(&["image", "export", "--format=oci-archive", &second, &archive]);
    let podman = |words: &[&str]| {
        let mut podman = Command::new("podman");
        let (root, state) = (host.path("podman"), host.path("podman-run"));
        podman.args([
            "--root",
            text(&root),
            "--runroot",
            text(&state),
            "--storage-driver=vfs",
        ]);
        run(podman.args(words))
    };
    podman(&["load", "--input", &archive]);
    let seen = parsed(&podman(&["image", "inspect", "example.com/second:1"]));
    let variables = seen[0]["Config"]["Env"].as_array().expect("variables");
    assert!(variables.contains(&json!("ONE=1")) && variables.contains(&json!("TWO=2")));
    let history = podman(&[
        "history",
        "--no-trunc",
        "--format={{.Comment}}",
        "example.com/second:1",
    ]);
    let told: Vec<_> = history.lines().take(2).collect();
    assert_eq!(told, ["two", "one"], "{history}");
    podman(&["rmi", "--all"]);
    let history = host.stdout(&["image", "history", "--format=json", &second]);
    let history = parsed(&history);
    assert_eq!(history[1]["comment"], json!("one"), "{history}");
    let steps = history.as_array().expect("a history").iter();
    let sizes: Vec<_> = steps.filter_map(|step| step["size"].as_u64()).collect();
    assert_eq!(sizes.len(), 5, "one for each layer: {history}");
    let uuid = ended(&host, &["example.com/second:1"]);
    let squashed = committed(&host, &["--squash", &uuid, "example.com/flat:1"]);
    let files = |name: &str| {
        let folder = host.path(&format!("rendered-{name}"));
        host.stdout(&["image", "render", name, text(&folder)]);
        run(Command::new("find").args([text(&folder), "-printf", "%P %s\\n"]))
    };
    let of_second = files(&second);
    assert_eq!(of_second.lines().count(), 2, "{of_second}");
    assert_eq!(of_second, files(&squashed));
}

#[test]
fn files_that_are_a_lie_make_no_image_and_leave_the_store_as_it_was() {
    let (host, uuid) = host();
    let before = store(&host);
    type Fill = fn(&mut Tree);
    let root = |tree: &mut Tree| tree.put("rootfs", Kind::Directory, 0o755, b"");
    let lies: [(&str, Fill); 5] = [
        ("leads out", |tree| {
            tree.put("rootfs/../../x", Kind::File(1), 0o644, b"x");
        }),
        ("leads out", |tree| {
            tree.put("rootfs/l", Kind::HardLink(b"/etc/passwd"), 0o644, b"");
        }),
        ("not in the image", |tree| {
            tree.put("rootfs/l", Kind::HardLink(b"rootfs/none"), 0o644, b"");
        }),
        ("its place", |tree| {
            tree.put("rootfs/b", Kind::File(1), 0o644, b"x");
            tree.put("rootfs/a", Kind::File(1), 0o644, b"x");
        }),
        ("beyond what Linux can hold", |tree| {
            tree.put("rootfs/d", Kind::Character(1 << 20, 1), 0o644, b"");
        }),
    ];
    for (why, fill) in lies {
        let mut tree = Tree::new(&host.path("tree"));
        root(&mut tree);
        fill(&mut tree);
        tree.0.finish().expect("a tar");
        let told = refused(&mut commit(&host, &[&uuid, "lie"]));
        assert!(told.contains(why), "{why}: {told}");
        assert_eq!(store(&host), before, "{why}");
    }
    fs::write(host.path("tree"), [7; 1024]).expect("a file");
    refused(&mut commit(&host, &[&uuid, "lie"]));
    // Cut short, by a machine that says that all is well.
    tree(&host);
    let whole = fs::read(host.path("tree")).expect("a tar");
    fs::write(host.path("tree"), &whole[..whole.len() / 2]).expect("a file");
    refused(&mut commit(&host, &[&uuid, "lie"]));
    assert_eq!(store(&host), before);
    // Whole as a tar, by a machine that could not read all files.
    fs::write(host.path("tree"), &whole).expect("a file");
    let told = refused(commit(&host, &[&uuid, "lie"]).env("SENDER_STATUS", "1"));
    assert!(told.contains("what sends the files failed"), "{told}");
    assert_eq!(store(&host), before);
    assert_eq!(host.pods("run").len(), 1, "those who read are gone");
}

#[test]
fn image_that_the_store_has_no_room_for_is_refused_with_what_to_do() {
    let (host, uuid) = host();
    let before = store(&host);
    let mut tree = Tree::new(&host.path("tree"));
    tree.put("rootfs", Kind::Directory, 0o755, b"");
    tree.put(
        "rootfs/large",
        Kind::File(8 << 20),
        0o644,
        &vec![7; 8 << 20],
    );
    tree.0.finish().expect("a tar");
    let mut small = commit(&host, &["--max-store-size=4Mi", &uuid, "large"]);
    let told = refused(&mut small);
    assert!(
        told.contains("max-store-size") && told.contains("image df"),
        "{told}"
    );
    let told = refused(&mut commit(
        &host,
        &["--max-image-size=4Mi", &uuid, "large"],
    ));
    assert!(told.contains("limit"), "{told}");
    assert_eq!(store(&host), before);
    committed(&host, &[&uuid, "large"]);
}

#[test]
fn commit_that_cannot_be_is_refused_with_the_reason() {
    let (host, uuid) = host();
    tree(&host);
    let before = store(&host);
    let two = ended(&host, &[BASE, "--name=one", BASE, "--name=two"]);
    let named = format!("{uuid}:none");
    for (words, why) in [
        (&["--include-volumes", &uuid][..], "volumes"),
        (&["--change=ONBUILD RUN x", &uuid], "ONBUILD"),
        (&["--change=RUN x", &uuid], "WORKDIR"),
        (&[&uuid, "../bad"], "no name for an image"),
        (&[&two], "UUID:APP"),
        (&[&named], "no app \"none\""),
        (&["ffffffff-none"], "fairing list"),
    ] {
        let told = refused(&mut commit(&host, words));
        assert!(told.contains(why), "{why}: {told}");
    }
    committed(&host, &[&format!("{two}:two"), "of-two"]);
    host.stdout(&["image", "rm", "of-two"]);
    assert_eq!(store(&host), before);
    host.stdout(&["image", "rm", "--force", BASE]);
    let told = refused(&mut commit(&host, &[&uuid]));
    assert!(
        told.contains("import it again") && told.contains("fairing export"),
        "{told}"
    );
    // One that runs.
    let living = "#!/bin/sh\ntrap 'exit 7' TERM\necho $$ >pid\nln -s ready stage1/rootfs/rkt/supervisor-status\nwhile :; do sleep 0.05; done\n";
    host.entrypoint("run", living);
    let mut running = host.pod("run", &[]).spawn().expect("fairing starts");
    until("the pod runs", || {
        let listed = host.stdout(&["list", "--no-legend"]);
        listed.contains("running")
    });
    let listed = host.stdout(&["list", "--no-legend", "--full"]);
    let line = listed.lines().find(|line| line.contains("running"));
    let living = line
        .and_then(|line| line.split_whitespace().next())
        .expect("a UUID");
    let told = refused(&mut commit(&host, &[living]));
    assert!(
        told.contains("is running") && told.contains("fairing stop"),
        "{told}"
    );
    running.kill().expect("it lives");
    running.wait().expect("its end");
}

/// Killed while the files are on their way.
#[test]
fn commit_that_is_killed_leaves_nothing_to_the_next_command() {
    let (host, uuid) = host();
    let before = store(&host);
    nix::unistd::mkfifo(&host.path("tree"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut killed = commit(&host, &[&uuid, "killed"]);
    let mut killed = killed
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("fairing starts");
    // Opened when the sender has opened it.
    let mut sender = File::options()
        .write(true)
        .open(host.path("tree"))
        .expect("the pipe");
    sender.write_all(&[0; 256]).expect("half a header");
    let works = || fs::read_dir(host.path("data/store/tmp")).expect("the store");
    until("the image is begun", || works().next().is_some());
    killed.kill().expect("it lives");
    killed.wait().expect("its end");
    drop(sender);
    until("the next commands remove it", || {
        host.stdout(&["list"]);
        host.stdout(&["image", "list"]);
        host.pods("run") == [&*uuid] && store(&host) == before
    });
    fs::remove_file(host.path("tree")).expect("the pipe");
    tree(&host);
    committed(&host, &[&uuid, "killed"]);
}

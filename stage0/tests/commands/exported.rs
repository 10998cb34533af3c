//! Images out of the store, read by the programs that others use.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use archive::{Entry, Kind, Xattrs};
use serde_json::{Value, json};

use crate::recorder::{Host, RECORD};

/// What the image is called.
const NAME: &str = "example.com/tool:1";

/// Stdout of a program that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Appends an entry of root's, of one time.
pub fn append(
    tar: &mut tar::Builder<File>,
    path: &str,
    kind: Kind<'_>,
    mode: u32,
    xattrs: &Xattrs,
    content: &[u8],
) {
    let entry = Entry {
        path: path.as_bytes(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 123_456_789),
        xattrs,
    };
    entry.append(tar, content).expect("room");
}

/// A layer with what an ordinary user can unpack.
pub fn layer(path: &Path) {
    let mut tar = tar::Builder::new(File::create(path).expect("a file"));
    let xattrs = Xattrs::from([(b"user.note".to_vec(), b"kept".to_vec())]);
    let none = Xattrs::new();
    let mut add = |path: &str, kind, mode, xattrs: &Xattrs, content: &[u8]| {
        append(&mut tar, path, kind, mode, xattrs, content);
    };
    add("./", Kind::Directory, 0o755, &none, b"");
    add("bin", Kind::Directory, 0o755, &none, b"");
    add("bin/app", Kind::File(3), 0o4755, &xattrs, b"app");
    add("bin/also", Kind::HardLink(b"bin/app"), 0o4755, &xattrs, b"");
    add("bin/link", Kind::Symlink(b"app"), 0o777, &none, b"");
    add("data", Kind::Directory, 0o1777, &none, b"");
    add("data/hole", Kind::File(1 << 20), 0o600, &none, b"begin");
    tar.into_inner().expect("a tar");
}

/// An OCI layout of two layers with a configuration that has everything, by umoci.
pub fn layout(host: &Host) -> String {
    let folder = text(&host.path("layout")).to_owned();
    let image = format!("{folder}:{NAME}");
    layer(&host.path("layer.tar"));
    fs::write(host.path("upper"), "upper").expect("a file");
    let umoci = |words: &[&str]| run(Command::new("umoci").args(words));
    umoci(&["init", "--layout", &folder]);
    umoci(&["new", "--image", &image]);
    umoci(&[
        "raw",
        "add-layer",
        "--image",
        &image,
        text(&host.path("layer.tar")),
    ]);
    umoci(&[
        "insert",
        "--rootless",
        "--image",
        &image,
        text(&host.path("upper")),
        "/data/upper",
    ]);
    umoci(&["insert", "--image", &image, "--whiteout", "/bin/link"]);
    let config = [
        "--config.entrypoint=/bin/app",
        "--config.entrypoint=first",
        "--config.cmd=second",
        "--config.env=A=b c",
        "--config.user=7:8",
        "--config.volume=/data",
        "--config.stopsignal=SIGINT",
        "--config.workingdir=/data",
        "--config.exposedports=80/tcp",
        "--config.label=org.example.note=text",
        "--author=me",
        "--created=2020-01-02T03:04:05Z",
    ];
    umoci(&[&["config", "--image", &image], &config[..]].concat());
    folder
}

/// A store with that image.
fn host() -> Host {
    let host = Host::new(RECORD);
    let layout = layout(&host);
    host.stdout(&["image", "import", &layout]);
    host
}

fn export(host: &Host, form: &str, out: &str) -> String {
    let out = host.path(out);
    host.stdout(&["image", "export", form, NAME, text(&out)]);
    text(&out).to_owned()
}

pub fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn exported_layout_has_the_configuration_that_came_and_the_same_files() {
    let host = host();
    let folder = export(&host, "--format=oci", "out");
    let image = format!("oci:{folder}:{NAME}");
    let config = parsed(&run(
        Command::new("skopeo").args(["inspect", "--config", &image])
    ));
    let expected = json!({
        "created": "2020-01-02T03:04:05Z", "author": "me", "architecture": "amd64", "os": "linux",
        "config": {"User": "7:8", "ExposedPorts": {"80/tcp": {}}, "Env": config["config"]["Env"],
            "Entrypoint": ["/bin/app", "first"], "Cmd": ["second"], "Volumes": {"/data": {}}, "WorkingDir": "/data",
            "Labels": {"org.example.note": "text"}, "StopSignal": "SIGINT"},
        "rootfs": config["rootfs"], "history": config["history"]
    });
    assert_eq!(config, expected);
    // The steps that made the three layers, of which one is left.
    let steps = config["history"].as_array().expect("a history");
    let made: Vec<_> = steps
        .iter()
        .map(|step| step["empty_layer"] != json!(true))
        .collect();
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{steps:?}");
    assert!(made.len() > 3, "{steps:?}");
    let variables = config["config"]["Env"].as_array().expect("variables");
    assert!(variables.contains(&json!("A=b c")));
    assert_eq!(
        unpacked(&host, &folder, NAME),
        unpacked(&host, text(&host.path("layout")), NAME)
    );
}

/// What umoci unpacks an image as, entry by entry.
pub fn unpacked(host: &Host, layout: &str, tag: &str) -> String {
    let bundle = tempfile::tempdir_in(host.path("")).expect("a folder");
    let to = text(bundle.path()).to_owned() + "/bundle";
    let image = format!("{layout}:{tag}");
    run(Command::new("umoci").args(["unpack", "--rootless", "--image", &image, &to]));
    let list = "find . -printf '%P %y %m %s %n %T@ %l\\n' | sort; getfattr -R -d -m '^user.note' . 2>&1; find . -type f | sort | xargs sha256sum";
    run(Command::new("sh")
        .args(["-c", list])
        .current_dir(to + "/rootfs"))
}

#[test]
fn export_of_what_was_exported_gives_the_same_bytes() {
    let host = host();
    let manifest = host.stdout(&["image", "cat-manifest", NAME]);
    for form in ["oci-archive", "docker-archive"] {
        let form = format!("--format={form}");
        let first = export(&host, &form, &form);
        host.stdout(&["image", "import", &first]);
        assert_eq!(host.stdout(&["image", "cat-manifest", NAME]), manifest);
        let second = export(&host, &form, "again");
        assert!(fs::read(first).expect("an archive") == fs::read(&second).expect("an archive"));
        fs::remove_file(second).expect("an archive");
    }
    let aci = export(&host, "--format=aci", "out.aci");
    run(Command::new("actool").args(["validate", &aci]));
    assert_eq!(
        host.output(&["image", "export", NAME, &aci]).status.code(),
        Some(254)
    );
    host.stdout(&["image", "import", &aci]);
}

#[test]
fn archives_are_loaded_by_podman_and_come_back_from_it() {
    let host = host();
    for form in ["docker-archive", "oci-archive"] {
        let archive = export(&host, &format!("--format={form}"), form);
        let storage = text(&host.path("podman")).to_owned();
        let podman = |words: &[&str]| {
            let mut podman = Command::new("podman");
            podman.args([
                "--root",
                &(storage.clone() + "/root"),
                "--runroot",
                &(storage.clone() + "/run"),
            ]);
            podman.args(["--storage-driver=vfs"]).args(words);
            podman
        };
        run(&mut podman(&["load", "--input", &archive]));
        let seen = run(&mut podman(&["image", "inspect", NAME]));
        assert_eq!(
            parsed(&seen)[0]["Config"]["Entrypoint"],
            json!(["/bin/app", "first"])
        );
        let mut save = podman(&["save", "--format", form, NAME]);
        let mut save = save.stdout(Stdio::piped()).spawn().expect("podman starts");
        let mut import = host.command(&["image", "import", "-"]);
        import.stdin(save.stdout.take().expect("a pipe"));
        let imported = import.output().expect("fairing starts");
        assert!(save.wait().expect("its end").success());
        assert!(imported.status.success(), "{imported:?}");
        let name = host.stdout(&["image", "list", "--fields=name", "--no-legend"]);
        assert!(name.contains(NAME), "{name}");
        run(&mut podman(&["rmi", "--all"]));
    }
}

#[test]
fn rendered_tree_is_what_umoci_unpacks() {
    let host = host();
    let out = host.path("rendered");
    host.stdout(&["image", "render", NAME, text(&out)]);
    let list = |folder: &Path| {
        let list = "find . -printf '%P %y %s %n %T@ %l\\n' | sort; getfattr -R -d -m '^user.note' . 2>&1; find . -type f | sort | xargs sha256sum";
        run(Command::new("sh").args(["-c", list]).current_dir(folder))
    };
    let (bundle, image) = (
        host.path("bundle"),
        format!("{}:{NAME}", text(&host.path("layout"))),
    );
    run(Command::new("umoci").args(["unpack", "--rootless", "--image", &image, text(&bundle)]));
    assert_eq!(list(&out), list(&bundle.join("rootfs")));
    let kept = host.output(&["image", "render", NAME, text(&out)]);
    assert_eq!(kept.status.code(), Some(254), "{kept:?}");
    let whole = host.path("extracted");
    host.stdout(&["image", "extract", NAME, text(&whole)]);
    assert_eq!(list(&whole.join("rootfs")), list(&out));
    let manifest = fs::read_to_string(whole.join("manifest")).expect("a manifest");
    assert_eq!(
        manifest.trim(),
        host.stdout(&["image", "cat-manifest", "--pretty-print=false", NAME])
            .trim()
    );
    host.stdout(&[
        "image",
        "extract",
        "--rootfs-only",
        "--overwrite",
        NAME,
        text(&whole),
    ]);
    assert_eq!(list(&whole), list(&out));
}

/// A folder of the image becomes a link where its files would go: of a tar made for that, and below a name that is there.
#[test]
fn rendered_files_stay_in_their_folder() {
    let host = Host::new(RECORD);
    let outside = host.path("outside");
    fs::create_dir(&outside).expect("a folder");
    let mut tar = tar::Builder::new(File::create(host.path("evil.tar")).expect("a file"));
    let mut add = |path: &str, kind, content: &[u8]| {
        let entry = Entry {
            path: path.as_bytes(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (1, 0),
            xattrs: &Xattrs::new(),
        };
        entry.append(&mut tar, content).expect("room");
    };
    add("out", Kind::Symlink(text(&outside).as_bytes()), b"");
    add("up", Kind::Symlink(b"../../outside"), b"");
    add("d", Kind::Directory, b"");
    add("d/f", Kind::File(1), b"x");
    add("d/l", Kind::Symlink(b"f"), b"");
    tar.into_inner().expect("a tar");
    host.stdout(&[
        "image",
        "import",
        "--name=evil",
        text(&host.path("evil.tar")),
    ]);
    let out = host.path("rendered");
    host.stdout(&["image", "render", "evil", text(&out)]);
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0);
    assert_eq!(fs::read_link(out.join("out")).expect("a link"), outside);
    // What is asked for is a folder of its own, whoever has put a link there.
    let link = host.path("link");
    std::os::unix::fs::symlink(&outside, &link).expect("a link");
    fs::write(outside.join("kept"), "").expect("a file");
    assert_eq!(
        host.output(&["image", "render", "evil", text(&link)])
            .status
            .code(),
        Some(254)
    );
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 1);
}

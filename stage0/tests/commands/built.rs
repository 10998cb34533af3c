//! What podman and buildah have built, found where they keep it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::exported::{layer, run, text};
use crate::recorder::{Host, RECORD, until};

/// Builds an image of two layers.
const CONTAINERFILE: &str =
    "FROM scratch\nADD layer.tar /\nCOPY upper /data/upper\nCMD [\"/bin/app\"]\n";

/// What a builder calls it.
const NAME: &str = "localhost/tool:latest";

/// podman or buildah, whose storage is that of the host's configuration.
fn builder(host: &Host, program: &str, driver: &str, words: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .arg("--root")
        .arg(host.path("storage"))
        .arg("--runroot")
        .arg(host.path("storage-run"))
        .arg(format!("--storage-driver={driver}"))
        .args(words)
        .env("HOME", host.path("home"))
        .current_dir(host.path(""));
    run(&mut command)
}

/// A host on which that image was built.
fn host(program: &str, driver: &str) -> Host {
    let host = Host::new(RECORD);
    layer(&host.path("layer.tar"));
    fs::write(host.path("upper"), "upper").expect("a file");
    fs::write(host.path("Containerfile"), CONTAINERFILE).expect("a file");
    build(&host, program, driver);
    host
}

fn build(host: &Host, program: &str, driver: &str) {
    let words = [
        "build",
        "--isolation=chroot",
        "--layers",
        "--quiet",
        "--tag=tool",
        ".",
    ];
    builder(host, program, driver, &words);
}

fn list(folder: &Path) -> String {
    let list = "find . -printf '%P %y %m %s %n %T@ %l\\n' | sort; getfattr -R -d -m '^user.note' . 2>&1; find . -type f | sort | xargs sha256sum";
    run(Command::new("sh").args(["-c", list]).current_dir(folder))
}

#[track_caller]
fn refused(host: &Host, words: &[&str], reasons: &[&str]) {
    let output = host.output(words);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(254), "{told}");
    for reason in reasons {
        assert!(told.contains(reason), "{reason:?} not in: {told}");
    }
}

#[test]
fn image_that_was_built_here_is_the_one_that_is_pushed() {
    for (program, driver) in [("podman", "overlay"), ("buildah", "vfs")] {
        let host = host(program, driver);
        let word = format!(
            "containers-storage:[{driver}@{}]tool",
            host.path("storage").display()
        );
        let id = host.stdout(&["image", "import", &word]);
        let (layout, bundle, out) = (host.path("layout"), host.path("bundle"), host.path("out"));
        builder(
            &host,
            program,
            driver,
            &[
                "push",
                "--quiet",
                NAME,
                &format!("oci:{}:{NAME}", text(&layout)),
            ],
        );
        assert_eq!(host.stdout(&["image", "import", text(&layout)]), id);
        host.stdout(&["image", "render", NAME, text(&out)]);
        let image = format!("{}:{NAME}", text(&layout));
        run(Command::new("umoci").args(["unpack", "--rootless", "--image", &image, text(&bundle)]));
        assert_eq!(list(&out), list(&bundle.join("rootfs")));
    }
}

#[test]
fn name_that_the_store_lacks_is_looked_for_where_podman_builds() {
    let host = host("podman", "vfs");
    refused(
        &host,
        &["image", "pull", "--pull-policy=never", "localhost/tool"],
        &["neither a path"],
    );
    refused(
        &host,
        &["image", "import", "containers-storage:other"],
        &["no such image", "podman images"],
    );
    let first = host.stdout(&["image", "pull", "localhost/tool"]);
    fs::write(host.path("upper"), "built anew").expect("a file");
    build(&host, "podman", "vfs");
    // What the store has will do, unless somebody asks for the newest.
    let pull = |policy: &str| host.stdout(&["image", "pull", policy, "localhost/tool:latest"]);
    assert_eq!(pull("--pull-policy=new"), first);
    let second = pull("--pull-policy=update");
    assert_ne!(second, first);
    let id = builder(
        &host,
        "podman",
        "vfs",
        &["images", "--no-trunc", "--quiet", NAME],
    );
    let by_id = format!("containers-storage:{}", id.trim());
    assert_eq!(host.stdout(&["image", "pull", &by_id]), second);
    let mut words = host.command(&["run", "--quiet"]);
    words.arg(format!("--stage1={}", host.path("stage1").display()));
    let status = words.arg("containers-storage:localhost/tool").status();
    assert_eq!(status.expect("fairing starts").code(), Some(42));
}

/// The folder in which the upper layer keeps its file `data/upper`.
fn upper(host: &Host) -> PathBuf {
    let layers = fs::read_dir(host.path("storage/overlay"))
        .expect("layers")
        .flatten();
    let mut files = layers.map(|layer| layer.path().join("diff/data/upper"));
    files.find(|path| path.exists()).expect("the layer")
}

/// The headers of the upper layer.
fn headers(host: &Host) -> PathBuf {
    let file = upper(host);
    let layer = file
        .ancestors()
        .nth(3)
        .and_then(Path::file_name)
        .expect("its folder");
    let name = format!("{}.tar-split.gz", layer.to_string_lossy());
    host.path("storage/overlay-layers").join(name)
}

#[test]
fn image_that_is_not_whole_any_more_leaves_the_store_as_it_was() {
    type Damage = fn(&Host);
    let damages: [(Damage, &str); 6] = [
        (
            |host| fs::write(upper(host), "other").expect("a file"),
            "wrong digest",
        ),
        (
            |host| fs::write(upper(host), "longer than it was").expect("a file"),
            "no longer the file",
        ),
        (
            |host| {
                let file = upper(host);
                fs::remove_file(&file).expect("a file");
                std::os::unix::fs::symlink(host.path("upper"), file).expect("a link");
            },
            "no longer the file",
        ),
        (
            // What a link of the image leads to is looked for in the layer.
            |host| {
                let data = upper(host).parent().expect("a folder").to_owned();
                fs::create_dir(host.path("outside")).expect("a folder");
                fs::write(host.path("outside/upper"), "upper").expect("a file");
                fs::remove_dir_all(&data).expect("a folder");
                std::os::unix::fs::symlink(host.path("outside"), &data).expect("a link");
            },
            "No such file",
        ),
        (
            |host| fs::write(headers(host), "{}\n").expect("a file"),
            "headers are damaged",
        ),
        (
            |host| fs::remove_file(headers(host)).expect("a file"),
            "podman save",
        ),
    ];
    let host = host("podman", "overlay");
    let kept = host.path("kept");
    let copy = |from: &Path, to: &Path| run(Command::new("cp").arg("-a").arg(from).arg(to));
    copy(&host.path("storage"), &kept);
    for (damage, reason) in damages {
        damage(&host);
        refused(
            &host,
            &["image", "import", "containers-storage:tool"],
            &[reason, "podman keeps"],
        );
        assert_eq!(host.stdout(&["image", "list", "--format=json"]), "[]\n");
        let left = fs::read_dir(host.path("data/store/tmp")).expect("a folder");
        assert_eq!(left.count(), 0);
        fs::remove_dir_all(host.path("storage")).expect("a folder");
        copy(&kept, &host.path("storage"));
    }
    host.stdout(&["image", "import", "containers-storage:tool"]);
}

#[test]
fn image_that_is_removed_meanwhile_is_said_to_be() {
    let host = host("podman", "overlay");
    let locked = File::options()
        .write(true)
        .open(host.path("storage/overlay-layers/layers.lock"))
        .expect("a lock");
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).expect("small"),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // As podman holds it while it removes layers.
    fcntl(&locked, FcntlArg::F_OFD_SETLKW(&whole)).expect("nobody else");
    let child = host
        .command(&["image", "import", "containers-storage:tool"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("fairing starts");
    let syscall = format!("/proc/{}/syscall", child.id());
    until("fairing waits for the lock", || {
        let waits = fs::read_to_string(&syscall).unwrap_or_default();
        waits.starts_with(&format!("{} ", libc::SYS_fcntl))
    });
    fs::write(host.path("storage/overlay-layers/layers.json"), "[]").expect("an index");
    drop(locked);
    let output = child.wait_with_output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("removed meanwhile"), "{told}");
    assert_eq!(output.status.code(), Some(254));
}

/// podman without root keeps files that its user cannot read; here one that nobody may, read by who is not root.
#[test]
fn files_of_other_users_are_read_by_podman() {
    let host = host("podman", "overlay");
    run(Command::new("chmod").arg("0").arg(upper(&host)));
    let fairing = host.command(&["image", "import", "containers-storage:tool"]);
    let output = Command::new("unshare")
        .args(["--map-user=1000", "--map-group=1000"])
        .arg(fairing.get_program())
        .args(fairing.get_args())
        .env("CONTAINERS_STORAGE_CONF", host.path("storage.conf"))
        .output()
        .expect("unshare starts");
    let told = String::from_utf8_lossy(&output.stderr);
    let way = format!("podman save {NAME} | fairing image import -");
    assert!(
        told.contains("not this user's") && told.contains(&way),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(254));
}

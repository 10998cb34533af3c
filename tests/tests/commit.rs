//! `fairing commit`: what an app has made of its files, as an image that runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::mounted::Mounted;
use tests::{fairing, fairing_in, finish, proved, run_image, succeed, temporary, test_image};

/// A file capability: the one to bind low ports, effective (linux/capability.h, version 2).
const CAPABILITY: &str = "0100000200040000000000000000000000000000";

/// What the first app leaves: files made, changed, removed, owned, linked.
const FIRST: &str = "cd /root; echo new >new; ln new twin; chown 5:6 new; chmod 4711 new; ln -s /etc/passwd link; mkfifo pipe; \
    mknod null c 1 3; rm /bin/vi; echo changed >/etc/group; chmod 700 /etc; mkdir -p deep/er; echo in >deep/er/file; \
    ln deep/er/file deep/hard; touch -d '1999-01-01 00:00:01' deep/er; chmod 555 deep; echo tool >tool; \
    /program/set_attribute new user.note 6b657074 && /program/set_attribute tool security.capability ";

/// What the second, which runs from what the first has left: a file written to by one of its names, a folder replaced by another.
const SECOND: &str = "cd /root; test ! -e /bin/vi && test $(stat -c %h new) = 2 || exit 9; echo more >>twin; chmod 755 deep; rm -r deep; \
    mkdir deep; echo other >deep/file; mv link moved; rm pipe; ln deep/file /srv-link; mkdir /bin/vi";

/// The facts that the last sees.
const FACTS: &str = "cd /root; cat new deep/file; stat -c '%u:%g %a %h' new twin; readlink moved; find deep; test -e pipe; echo $?; \
    test -d /bin/vi; echo $?; stat -c %a /etc; cat /etc/group";

/// A pod that has ended; gives its UUID.
#[track_caller]
fn ended(mut run: Command, folder: &Path) -> String {
    succeed(&mut run);
    let uuid = fs::read_to_string(folder.join("uuid")).expect("a UUID");
    uuid.trim().to_owned()
}

#[track_caller]
fn commit(words: &[&str]) -> String {
    succeed(fairing().arg("commit").args(words))
        .out()
        .trim()
        .to_owned()
}

/// The files of an image, in a folder of a file system that keeps all of them.
#[track_caller]
fn rendered(image: &str, disk: &Mounted) -> std::path::PathBuf {
    let folder = disk.path().join(image.replace('/', "-"));
    succeed(fairing().args(["image", "render", image]).arg(&folder));
    folder
}

#[test]
fn committed_image_is_the_app_s_files_as_it_left_them_and_runs_as_it_is_told() {
    let folder = temporary("fairing-commit-");
    let program = folder.path().join("program");
    fs::create_dir(&program).expect("a folder");
    fs::copy(
        env!("CARGO_BIN_EXE_set_attribute"),
        program.join("set_attribute"),
    )
    .expect("the program");
    let save = format!("--uuid-file-save={}", folder.path().join("uuid").display());
    let share = format!("-v={}:/program:ro", program.display());
    let script = format!("{FIRST}{CAPABILITY}");
    let first = run_image(&test_image("busybox"), &[&save, &share], &script);
    let mut pods = vec![ended(first, folder.path())];
    let uuid = &*pods[0];
    let one = commit(&["--message=one", uuid, "example.com/one"]);
    assert_eq!(commit(&[uuid, "--message=one", "example.com/again"]), one);

    // What it leaves is what `export` says that it has left.
    let disk = Mounted::ext4(folder.path(), "disk");
    expect_same_as_exported(uuid, "example.com/one", &disk, folder.path());
    let left = disk.path().join("example.com-one/root");
    let attribute = |file: &str, name: &str| xattr::get(left.join(file), name).expect("attributes");
    assert_eq!(
        attribute("twin", "user.note").as_deref(),
        Some(&b"kept"[..])
    );
    assert!(attribute("tool", "security.capability").is_some());
    let second = run_image(Path::new("example.com/one"), &[&save], SECOND);
    pods.push(ended(second, folder.path()));
    let uuid = &*pods[1];
    let words = [
        "--change=ENV WORD=told",
        "--change=USER 5:6",
        "--change=WORKDIR /tmp",
        "--change=ENTRYPOINT [\"/bin/sh\", \"-c\"]",
    ];
    let words = [
        &words[..],
        &[
            "--change=CMD [\"echo $WORD $(id -u):$(id -g) $PWD\"]",
            uuid,
            "example.com/two",
        ],
    ]
    .concat();
    commit(&words);
    expect_same_as_exported(uuid, "example.com/two", &disk, folder.path());

    let mut told = fairing();
    told.args(["run", "--rm", "example.com/two"]);
    assert_eq!(succeed(&mut told).out(), "told 5:6 /tmp\n");
    let mut facts = fairing();
    facts.args([
        "run",
        "--rm",
        "example.com/two",
        "--user=0",
        "--group=0",
        "--",
        &proved(FACTS),
    ]);
    let seen = "new\nmore\nother\n5:6 4711 2\n5:6 4711 2\n/etc/passwd\ndeep\ndeep/file\n1\n0\n700\nchanged\n";
    assert_eq!(succeed(&mut facts).out(), seen);
    succeed(fairing().args(["rm", &pods[0], &pods[1]]));
}

/// Compares the files of an image that was committed with those of an image that is exported of the same pod.
#[track_caller]
fn expect_same_as_exported(uuid: &str, name: &str, disk: &Mounted, folder: &Path) {
    let aci = folder.join("exported.aci");
    succeed(fairing().args(["export", "--overwrite", uuid]).arg(&aci));
    let exported = format!("exported-{uuid}");
    succeed(
        fairing()
            .args(["image", "import", "--name", &exported])
            .arg(&aci),
    );
    let mut compare = Command::new(env!("CARGO_BIN_EXE_compare_trees"));
    compare
        .arg(rendered(name, disk))
        .arg(rendered(&exported, disk));
    let compared = finish(&mut compare);
    assert_eq!(compared.code, 0, "{} {}", compared.out(), compared.err());
}

#[test]
fn app_whose_root_was_a_folder_of_the_host_is_committed() {
    let folder = temporary("fairing-commit-");
    // An overlay needs a file system that can hold one.
    let host = Mounted::ext4(folder.path(), "host");
    let fairing = || fairing_in(&host.path().join("data"));
    let mut run = fairing();
    run.args(["run", "--rootfs=shared"])
        .arg(format!("--uuid-file-save={}", folder.path().join("uuid").display()))
        .arg(test_image("busybox"))
        .args(["--exec=/bin/sh", "--", "-c"])
        .arg(proved("cd /root; echo new >new; ln new twin; chown 5:6 new; rm /bin/vi; echo changed >/etc/group"));
    let uuid = ended(run, folder.path());
    succeed(fairing().args(["commit", &uuid, "one"]));
    let facts = "cd /root; cat twin /etc/group; stat -c '%u:%g %h' new; test -e /bin/vi; echo $?";
    let mut ran = fairing();
    ran.args([
        "run",
        "--rm",
        "one",
        "--exec=/bin/sh",
        "--",
        "-c",
        &proved(facts),
    ]);
    assert_eq!(succeed(&mut ran).out(), "new\nchanged\n5:6 2\n1\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&uuid), "{mounts}");
}

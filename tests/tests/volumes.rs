//! Volumes of a pod: folders and files of the host over virtio-fs, and empty ones.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tests::leftovers::Leftovers;
use tests::mounted::Mounted;
use tests::{
    Finished, finish, finish_within, rounds, run_image, run_sh, tell, temporary, test_image,
};

/// A folder of the host that a pod is given.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        Self(temporary("fairing-volume-"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `--volume` of `name` in it, under that name.
    fn volume(&self, name: &str, options: &str) -> String {
        let source = self.path(name);
        format!(
            "--volume={name},kind=host,source={}{options}",
            source.display()
        )
    }
}

/// A pod that runs `script` with these volumes, each mounted at /NAME.
fn pod(volumes: &[(&str, String)], options: &[&str], script: &str) -> Command {
    let mut arguments = vec!["--rm".to_owned()];
    for (name, volume) in volumes {
        arguments.extend([
            volume.clone(),
            format!("--mount=volume={name},target=/{name}"),
        ]);
    }
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    run_sh(&arguments, script)
}

fn run(volumes: &[(&str, String)], options: &[&str], script: &str) -> Finished {
    finish(&mut pod(volumes, options, script))
}

#[test]
fn folders_given_in_short_are_shared_and_read_only_where_that_is_said() {
    let shared = Shared::new();
    for name in ["in", "out"] {
        fs::create_dir(shared.path(name)).expect("a folder");
    }
    fs::write(shared.path("in/word"), "given").expect("a file");
    let share =
        |name: &str, more: &str| format!("-v={}:/{name}{more}", shared.path(name).display());
    let (read, write) = (share("in", ":ro"), share("out", ""));
    let script = "cat /in/word; touch /in/more 2>/dev/null || echo barred; echo made > /out/word";
    let finished = finish(&mut run_sh(&["--rm", &read, &write], script)).expect_code(0);
    assert_eq!(finished.out(), "givenbarred\n");
    let made = fs::read_to_string(shared.path("out/word")).expect("a file");
    assert_eq!(made, "made\n");
    assert!(!shared.path("in/more").exists());
}

#[test]
fn target_through_a_link_of_the_image_that_climbs_stays_in_the_app() {
    let shared = Shared::new();
    fs::create_dir(shared.path("data")).expect("a folder");
    fs::write(shared.path("data/word"), "given").expect("a file");
    // A folder of the image, and one of the machine's own root.
    fs::create_dir(shared.path("scratch")).expect("a folder");
    symlink("../../../scratch", shared.path("climbs")).expect("a link");
    let image = shared.path("image");
    let shell = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        finish(command.args(arguments).current_dir(shared.0.path())).expect_code(0);
    };
    let busybox = test_image("busybox").display().to_string();
    shell("cp", &["-a", &busybox, "image"]);
    shell("tar", &["cf", "layer.tar", "climbs", "scratch"]);
    shell(
        "umoci",
        &["raw", "add-layer", "--image", "image:latest", "layer.tar"],
    );
    let share = format!("-v={}:/climbs/here", shared.path("data").display());
    let script = "readlink /climbs; cat /scratch/here/word /climbs/here/word";
    let finished = finish(&mut run_image(&image, &["--rm", &share], script)).expect_code(0);
    assert_eq!(finished.out(), "../../../scratch\ngivengiven");
}

#[test]
fn host_folder_has_in_the_pod_what_programs_do_to_files() {
    let shared = Shared::new();
    let _disk = Mounted::ext4(shared.0.path(), "data");
    fs::copy(
        env!("CARGO_BIN_EXE_volume_features"),
        shared.path("data/features"),
    )
    .expect("the program is built");
    let volume = ("data", shared.volume("data", ""));
    let finished = run(&[volume], &[], "cd /data && ./features");
    let out = finished.out();
    tell(&format!("{} trials", out.matches("ok ").count()));
    assert!(!out.contains("FAIL"), "{out}\n{}", finished.err());
    assert!(out.matches("ok ").count() > 20, "{out}");
    finished.expect_code(0);

    // And the host's file system has it.
    let found = |name: &str| fs::symlink_metadata(shared.path("data").join(name)).expect(name);
    let owned = found("owned");
    assert_eq!(
        (owned.uid(), owned.gid(), owned.mode() & 0o7777),
        (12, 34, 0o4711)
    );
    assert_eq!(found("link-a").ino(), found("link-b").ino());
    assert_eq!(
        (found("theirs/file").uid(), found("mapped").uid()),
        (1000, 0)
    );
    assert!(found("sparse").len() > 4 << 30 && found("sparse").blocks() < 1000);
    let read = |name: &str| fs::read(shared.path("data").join(name)).expect(name);
    assert_eq!(read("mapped")[5000], 42);
    let attribute = xattr::get(shared.path("data/attributes"), "user.one").expect("attributes");
    assert_eq!(attribute, Some(vec![b'v'; 300]));
}

#[test]
fn host_folder_of_many_entries_is_listed_whole() {
    let shared = Shared::new();
    fs::create_dir(shared.path("many")).expect("a folder");
    let entries = rounds("entries", 5_000, 100_000);
    for number in 0..entries {
        fs::write(shared.path(&format!("many/{number}")), "").expect("a file");
    }
    let volume = ("many", shared.volume("many", ""));
    let script = "ls /many | wc -l; ls -l /many | wc -l; rm /many/1* && ls /many | wc -l";
    // Emulated, the long run's work takes more than ten minutes.
    let hour = Duration::from_secs(3600);
    let out = finish_within(hour, &mut pod(&[volume], &[], script));
    let out = out.expect_code(0).out();
    let left = (0..entries).filter(|number| !number.to_string().starts_with('1'));
    assert_eq!(
        out,
        format!("{entries}\n{}\n{}\n", entries + 1, left.count())
    );
}

#[test]
fn read_only_folder_is_the_hosts_to_protect() {
    let shared = Shared::new();
    fs::create_dir(shared.path("kept")).expect("a folder");
    fs::write(shared.path("kept/file"), "mine").expect("a file");
    let volume = shared.volume("kept", ",readOnly=true");
    // Root of the guest with every capability lifts what the guest's kernel says; the host's stays.
    let script = "cat /kept/file; echo x 2>/dev/null >/kept/file || echo refused; \
                  mount -o remount,rw /kept && echo lifted; \
                  (echo x >/kept/file) 2>&1 | grep -o 'Read-only file system'; \
                  rm /kept/file 2>/dev/null || echo kept; chmod 777 /kept 2>/dev/null || echo as it was";
    let arguments = ["--rm", &volume, "--mount=volume=kept,target=/kept"];
    let command = run_sh(&arguments, script);
    let mut privileged = Command::new(command.get_program());
    privileged
        .arg("--insecure-options=all-run")
        .args(command.get_args());
    let finished = finish(&mut privileged).expect_code(0);
    assert_eq!(
        finished.out(),
        "minerefused\nlifted\nRead-only file system\nkept\nas it was\n",
        "{}",
        finished.err()
    );
    assert_eq!(
        fs::read(shared.path("kept/file")).expect("the file"),
        b"mine"
    );
}

#[test]
fn single_file_and_linked_source_are_shared() {
    let shared = Shared::new();
    fs::create_dir(shared.path("real")).expect("a folder");
    fs::write(shared.path("real/note"), "in the folder\n").expect("a file");
    fs::write(shared.path("file"), "one file\n").expect("a file");
    symlink("real", shared.path("linked")).expect("a link");
    let volumes = ["file", "linked"].map(|name| (name, shared.volume(name, "")));
    let script = "cat /file /linked/note; echo more >>/file; ls /file/.. | grep -c note";
    let finished = run(&volumes, &[], script);
    assert_eq!(
        finished.out(),
        "one file\nin the folder\n0\n",
        "{}",
        finished.err()
    );
    let text = fs::read_to_string(shared.path("file")).expect("the file");
    assert_eq!(text, "one file\nmore\n");
}

#[test]
fn what_is_mounted_below_comes_along_unless_told_otherwise() {
    let shared = Shared::new();
    let below = shared.path("outer/below");
    fs::create_dir_all(&below).expect("folders");
    let tmpfs = ["-t", "tmpfs", "tmpfs"];
    finish(Command::new("mount").args(tmpfs).arg(&below)).expect_code(0);
    fs::write(below.join("file"), "below\n").expect("a file");
    let listed = |options: &str| {
        let volume = ("outer", shared.volume("outer", options));
        run(
            &[volume],
            &[],
            "ls /outer/below; echo x 2>/dev/null >/outer/below/new || echo refused",
        )
    };
    let (with, without) = (listed(""), listed(",recursive=false"));
    let read_only = listed(",readOnly=true");
    finish(Command::new("umount").arg(&below)).expect_code(0);
    assert_eq!(with.expect_code(0).out(), "file\n");
    assert_eq!(without.expect_code(0).out(), "");
    assert_eq!(read_only.expect_code(0).out(), "file\nnew\nrefused\n");
}

#[test]
fn empty_volume_has_its_owner_and_mode_and_ends_with_the_pod() {
    let volume = (
        "empty",
        "--volume=empty,kind=empty,mode=1770,uid=5,gid=6".to_owned(),
    );
    let script = "stat -c '%u %g %a' /empty; ls -A /empty; echo x >/empty/file";
    for _ in 0..2 {
        let out = run(std::slice::from_ref(&volume), &[], script)
            .expect_code(0)
            .out();
        assert_eq!(out, "5 6 1770\n");
    }
}

#[test]
fn volumes_stay_writable_on_a_read_only_root_and_are_no_way_out() {
    let shared = Shared::new();
    for name in ["one", "two"] {
        fs::create_dir(shared.path(name)).expect("a folder");
    }
    fs::write(shared.path("secret"), "outside\n").expect("a file");
    fs::set_permissions(shared.path("one"), Permissions::from_mode(0o700)).expect("a mode");
    chown(shared.path("one"), Some(1000), Some(1000)).expect("an owner");
    symlink("../secret", shared.path("two/link")).expect("a link");
    let volumes = ["one", "two"].map(|name| (name, shared.volume(name, "")));
    let script = "echo x >/one/x && echo x >/two/x && ! echo x 2>/dev/null >/x && \
                  cat /two/../secret /two/link /one/../../../../../../secret 2>&1 | grep -c 'No such file'; \
                  ln /one/x /two/y 2>&1 | grep -c ross";
    let finished = run(&volumes, &["--readonly-rootfs"], script);
    assert_eq!(finished.out(), "3\n1\n", "{}", finished.err());
    assert!(shared.path("two/x").exists());
}

#[test]
fn volume_that_is_missing_or_malformed_is_refused_and_nothing_left() {
    let shared = Shared::new();
    finish(&mut run_sh(&["--rm"], "exit 0")).expect_code(0);
    let before = Leftovers::now();
    let missing = [("missing", shared.volume("missing", ""))];
    let finished = run(&missing, &[], "echo ran").expect_code(254);
    let source = shared.path("missing").display().to_string();
    assert!(finished.err().contains(&source), "{}", finished.err());
    assert!(
        finished.err().contains("No such file"),
        "{}",
        finished.err()
    );
    for (volume, target, reason) in [
        ("--volume=v,kind=empty", "target=/", "root"),
        ("--volume=v,kind=empty,mode=9", "target=/v", "octal"),
        ("--volume=other,kind=empty", "target=/v", "no volume"),
    ] {
        let mount = format!("--mount=volume=v,{target}");
        let finished = finish(&mut run_sh(&["--rm", volume, &mount], "echo ran")).expect_code(254);
        assert!(finished.err().contains(reason), "{}", finished.err());
    }
    // Through a proc file system a guest would reach the process that runs it.
    for source in ["/proc/self", "/"] {
        let volume = format!("--volume=v,kind=host,source={source}");
        let options = ["--rm", &volume, "--mount=volume=v,target=/v"];
        let finished = finish(&mut run_sh(&options, "echo ran")).expect_code(254);
        assert!(
            finished.err().contains("proc file system"),
            "{}",
            finished.err()
        );
    }
    assert_eq!(Leftovers::now().since(&before), [""; 0]);
}

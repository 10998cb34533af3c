//! A stage 1 that takes only directories, here a few lines of shell: the host mounts the image under an overlay for it,
//! and nothing of that is left when the pod is gone, however it went. Needs root and no KVM.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::{fairing, finish, proved, succeed, tell, test_image, wait_until};

/// Runs the app as the simplest of stage 1s would: changes root, nothing else.
const CHROOT: &str = r#"#!/bin/sh
echo $$ >pid
root=$(echo stage1/rootfs/opt/stage2/*/rootfs)
chroot "$root" /bin/sh -c 'grep -q ^worker: /etc/passwd && echo written >/root/file && cat /root/file; exit 42'
"#;

/// Lives in the app's directory until it is killed.
const LIVING: &str = r#"#!/bin/sh
cd stage1/rootfs/opt/stage2/*/rootfs && echo $$ >../../../../../../pid && exec sleep 1000
"#;

/// A store on a file system of its own, which can hold overlays, and a stage 1.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new(run: &str) -> Self {
        let host = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
        };
        let tmpfs = ["mount", "-t", "tmpfs", "tmpfs"];
        succeed(
            Command::new(tmpfs[0])
                .args(&tmpfs[1..])
                .arg(host.dir.path()),
        );
        fs::create_dir_all(host.path("stage1/rootfs/rkt/status")).expect("stage 1 folders");
        host.entrypoint("run", run);
        host.entrypoint(
            "gc",
            "#!/bin/sh\nls stage1/rootfs/opt/stage2/*/rootfs >>\"$GC\" 2>&1\n",
        );
        let manifest = r#"{"acVersion":"0.8.11","acKind":"ImageManifest","name":"shell","annotations":[
            {"name":"coreos.com/rkt/stage1/interface-version","value":"6"},
            {"name":"coreos.com/rkt/stage1/run","value":"/run"},
            {"name":"coreos.com/rkt/stage1/gc","value":"/gc"}]}"#;
        fs::write(host.path("stage1/manifest"), manifest).expect("a manifest");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn entrypoint(&self, name: &str, script: &str) {
        let path = self.path("stage1/rootfs").join(name);
        fs::write(&path, script).expect("an entrypoint");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its mode");
    }

    fn fairing(&self) -> Command {
        let mut command = fairing();
        command
            .arg("--dir")
            .arg(self.path("data"))
            .env("GC", self.path("gc-saw"));
        command
    }

    fn run(&self, options: &[&str], image: &Path) -> Command {
        let mut command = self.fairing();
        command
            .args(["run", "--stage1"])
            .arg(self.path("stage1"))
            .args(options)
            .arg(image);
        command
    }

    fn list(&self) -> String {
        finish(self.fairing().args(["list", "--no-legend"]))
            .expect_code(0)
            .out()
    }

    /// Starts a pod that lives, and returns it once its app's directory is in use.
    fn living(&self, command: &mut Command) -> Child {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fairing starts");
        wait_until("the pod is in its directory", || {
            fs::read_link(format!("/proc/{}/cwd", child.id()))
                .is_ok_and(|cwd| cwd.ends_with("rootfs"))
        });
        child
    }

    /// What the kernel still has of this host's pods: mounts below the data directory, and loop devices.
    fn held(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
        let data = self.path("data").display().to_string();
        let mounts = table
            .lines()
            .filter(|line| line.contains(&data))
            .map(str::to_owned);
        mounts.chain(self.loop_devices()).collect()
    }

    fn loop_devices(&self) -> Vec<String> {
        let devices = fs::read_dir("/sys/block").expect("block devices");
        devices
            .filter_map(|device| {
                let file = device.expect("a device").path().join("loop/backing_file");
                fs::read_to_string(file).ok()
            })
            .filter(|file| file.starts_with(&self.path("data").display().to_string()))
            .collect()
    }

    /// Fails unless everything goes, which the kernel does a moment later than it says.
    #[track_caller]
    fn expect_nothing_held(&self) {
        wait_until("neither mounts nor loop devices are left", || {
            self.held().is_empty()
        });
    }

    /// Removes what pods there are, and expects nothing to be left of them.
    fn gc(&self) {
        finish(self.fairing().args(["gc", "--grace-period=0s"])).expect_code(0);
        assert_eq!(self.list(), "");
        self.expect_nothing_held();
    }
}

/// What an app holds of the kernel: its overlay, and loop devices for the image's index and its one layer with data.
const HELD: usize = 3;

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-lR")
            .arg(self.dir.path())
            .status();
    }
}

/// The one file below `dir` called `name`.
fn only(dir: &Path, name: &str) -> PathBuf {
    let found = succeed(Command::new("find").arg(dir).args(["-xdev", "-name", name])).out();
    let [path] = &found.lines().collect::<Vec<_>>()[..] else {
        panic!("not one {name}: {found}");
    };
    PathBuf::from(path)
}

#[test]
fn app_has_its_image_and_writes_into_the_pods_layer() {
    let host = Host::new(CHROOT);
    succeed(
        host.fairing()
            .args(["image", "import"])
            .arg(test_image("busybox")),
    );
    let image = only(&host.path("data/store"), "data");
    let before = fs::read(&image).expect("the image");
    let finished = finish(&mut host.run(&["--name=app"], &test_image("busybox"))).expect_code(42);
    assert_eq!(finished.out(), "written\n");
    assert!(fs::read(&image).expect("the image") == before);

    // As the contract names them; the mounts stay until the next command.
    let pods = host.path("data/pods/run");
    let layer = only(&pods, "file");
    let pod = layer.ancestors().nth(6).expect("the pod");
    let tree = fs::read_to_string(only(&pods, "treeStoreID")).expect("the id of its layers");
    assert!(tree.starts_with("deps-sha512-") && !tree.ends_with('\n'));
    assert_eq!(
        layer,
        pod.join("overlay").join(tree).join("upper/app/root/file")
    );
    assert_eq!(host.held().len(), HELD, "{:?}", host.held());
    assert!(host.list().contains("exited"));
    host.expect_nothing_held();
    let seen = fs::read_to_string(host.path("gc-saw")).expect("gc ran");
    assert!(seen.contains("bin"), "gc saw {seen:?}");
    host.gc();
}

#[test]
fn root_shared_with_a_machine_is_written_through_to_the_pods_layer() {
    let host = Host::new(CHROOT);
    let mut command = host.fairing();
    command
        .args(["run", "--rootfs=shared", "--name=app"])
        .arg(test_image("busybox"));
    let script = proved(
        "mount | grep -c ' on / type virtiofs'; su worker -c id | cut -c1-16; \
         echo written >/root/file; chmod 640 /root/file; rm /bin/yes; touch /dev/shm/x; exit 42",
    );
    let finished = finish(command.args(["--exec", "/bin/sh", "--", "-c", &script])).expect_code(42);
    assert_eq!(
        finished.out(),
        "1\nuid=1000(worker)\n",
        "{}",
        finished.err()
    );
    let layer = only(&host.path("data/pods/run"), "file");
    assert!(
        layer.ends_with("upper/app/root/file"),
        "{}",
        layer.display()
    );
    assert_eq!(fs::read(&layer).expect("the file"), b"written\n");
    assert_eq!(
        fs::metadata(&layer).expect("the file").permissions().mode() & 0o777,
        0o640
    );
    // What was deleted is hidden in the layer, and what is the machine's own is not in it.
    let upper = layer.ancestors().nth(2).expect("the layer");
    assert!(fs::symlink_metadata(upper.join("bin/yes")).is_ok());
    assert!(!upper.join("dev/shm/x").exists());
    assert_eq!(host.held().len(), HELD, "{:?}", host.held());
    assert!(host.list().contains("exited"));
    host.expect_nothing_held();
    host.gc();
}

#[test]
fn root_of_the_directory_is_the_images_and_its_links_stay_inside() {
    let host = Host::new(
        "#!/bin/sh\nstat -c '%a %u %g %Y' stage1/rootfs/opt/stage2/*/rootfs\nls -l /proc/self/mounts >/dev/null\n",
    );
    let image = host.path("image");
    let elsewhere = host.path("elsewhere");
    fs::create_dir_all(&image).expect("a root");
    fs::create_dir_all(&elsewhere).expect("a folder of the host");
    symlink(&elsewhere, image.join("etc")).expect("a link out of the image");
    chown(&image, Some(5), Some(6)).expect("an owner");
    fs::set_permissions(&image, Permissions::from_mode(0o711)).expect("a mode");
    succeed(
        Command::new("touch")
            .args(["-d", "@1000000000"])
            .arg(&image),
    );
    let mut command = host.run(&["--rm"], &image);
    let finished = finish(command.args(["--", "x"])).expect_code(0);
    assert_eq!(finished.out(), "711 5 6 1000000000\n");
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 0);
    assert_eq!(host.list(), "");
    host.expect_nothing_held();
}

#[test]
fn pod_killed_while_it_runs_is_unmounted_by_the_next_command() {
    let host = Host::new(LIVING);
    // By a link, which the kernel's table does not know.
    symlink(host.path("data"), host.path("link")).expect("a link");
    fs::create_dir(host.path("data")).expect("a data directory");
    let mut command = host.run(&[], &test_image("busybox"));
    let mut child = host.living(command.arg("--dir").arg(host.path("link")));
    assert_eq!(host.held().len(), HELD, "{:?}", host.held());
    child.kill().expect("it can be killed");
    child.wait().expect("its end");
    let list = finish(
        host.fairing()
            .arg("--dir")
            .arg(host.path("link"))
            .args(["list", "--no-legend"]),
    );
    assert!(list.expect_code(0).out().contains("exited"));
    host.expect_nothing_held();
    host.gc();
}

#[test]
fn mounts_copied_into_another_namespace_go_with_the_pod() {
    let host = Host::new(LIVING);
    let mut pod = host.living(&mut host.run(&[], &test_image("busybox")));
    // It ends with this process, however the test does: at the end of its input.
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("unshare starts");
    let table = format!("/proc/{}/mountinfo", other.id());
    let copied = || {
        let table = fs::read_to_string(&table).expect("its mount table");
        table.contains(&host.path("data").display().to_string())
    };
    let own = fs::read_link("/proc/self/ns/mnt").expect("a namespace");
    wait_until("it is in a namespace of its own", || {
        fs::read_link(format!("/proc/{}/ns/mnt", other.id())).is_ok_and(|link| link != own)
    });
    assert!(copied());
    pod.kill().expect("it can be killed");
    pod.wait().expect("its end");
    host.list();
    host.expect_nothing_held();
    assert!(!copied());
    drop(other.stdin.take());
    other.wait().expect("its end");
}

#[test]
fn pod_of_before_a_reboot_is_released_and_removed() {
    let host = Host::new(LIVING);
    let mut pod = host.living(&mut host.run(&[], &test_image("busybox")));
    pod.kill().expect("it can be killed");
    pod.wait().expect("its end");
    // What a reboot leaves of the mounts.
    for line in host.held().iter().filter(|line| line.contains(" - ")) {
        succeed(Command::new("umount").arg(line.split(' ').nth(4).expect("a mount point")));
    }
    assert!(host.list().contains("exited"));
    host.gc();
}

#[test]
fn command_killed_at_any_moment_leaves_nothing_that_gc_does_not_remove() {
    let host = Host::new(LIVING);
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .subsec_nanos();
    tell(&format!("seed {seed}"));
    // The span of a start here, for the kills to fall into; by then the image is imported.
    let begun = std::time::Instant::now();
    let mut first = host.living(&mut host.run(&[], &test_image("busybox")));
    first.kill().expect("it can be killed");
    first.wait().expect("its end");
    let span_us = u32::try_from(begun.elapsed().as_micros()).expect("a short while");
    for _ in 0..10 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut child = host
            .run(&[], &test_image("busybox"))
            .stderr(Stdio::null())
            .spawn()
            .expect("fairing starts");
        // The moment is the test's subject: nothing is being waited for.
        thread::sleep(Duration::from_micros((seed % span_us).into()));
        child.kill().expect("it can be killed");
        child.wait().expect("its end");
    }
    let list = host.list();
    assert!(
        !list.contains("running") && !list.contains("prepar"),
        "{list}"
    );
    host.expect_nothing_held();
    host.gc();
}

#[test]
fn directories_are_refused_without_root_and_by_a_stage1_that_takes_none() {
    let host = Host::new(CHROOT);
    fs::set_permissions(host.dir.path(), Permissions::from_mode(0o777)).expect("a mode");
    let program = fairing().get_program().to_owned();
    let image = host.path("image");
    fs::create_dir(&image).expect("a root");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=54321", "--regid=54321", "--clear-groups", "--"])
        .arg(program)
        .arg("--dir")
        .arg(host.path("users"))
        .arg("--user-config")
        .arg(host.path("no-config"))
        .args(["run", "--stage1"])
        .arg(host.path("stage1"))
        .arg(&image);
    let refused = finish(&mut command).expect_code(254);
    assert!(
        refused.err().contains("only root may mount"),
        "{}",
        refused.err()
    );
    let path = host.path("stage1/manifest");
    let manifest = fs::read_to_string(&path).expect("a manifest");
    let takes_none =
        r#"{"name":"fairing/stage1/rootfs","value":"erofs"},{"name":"coreos.com/rkt/stage1/gc""#;
    let manifest = manifest.replace(r#"{"name":"coreos.com/rkt/stage1/gc""#, takes_none);
    fs::write(&path, manifest).expect("a manifest");
    let mut command = host.run(&["--rootfs=shared"], &test_image("busybox"));
    let refused = finish(&mut command).expect_code(254);
    assert!(
        refused.err().contains("--rootfs=shared"),
        "{}",
        refused.err()
    );
}

//! A power cut: a host is reset while pods run, and started again with the same disk. Runs not on such a host but beside it:
//! the hosts are emulated everywhere, and the disk, on which the store lies, is a file.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::json;
use tests::{Finished, checkout, finish, proved, rounds, test_image};

/// Where a host has the disk.
const DISK: &str = "/mnt/fairing-disk";

/// What scripts/on-kvm says of a host that is gone.
const HOST_LOST: i32 = 253;

/// What the app of a pod goes on with until the power is cut.
const FOREVER: &str = "exec sleep 1000";

/// A host that starts with the first command after its power was cut.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    /// One with an empty disk.
    fn new() -> Self {
        // Hosts have the machine's folder for such files.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let host = Self { folder };
        let file = fs::File::create(host.disk()).expect("a file");
        file.set_len(2 << 30).expect("a sparse file");
        finish(Command::new("/sbin/mkfs.ext4").arg("-q").arg(host.disk())).expect_code(0);
        host
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(checkout().join("scripts/on-kvm"));
        let name = format!("--keep=restart-{}", std::process::id());
        // A test that fails leaves it to go by itself.
        command.env("FAIRING_KVM_IDLE_SECONDS", "20");
        command.env("FAIRING_KVM", "emulated").stdin(Stdio::null());
        command.args([&*name, "--"]).args(words);
        command
    }

    #[track_caller]
    fn shell(&self, script: &str) -> String {
        let done = finish(&mut self.command(&["sh", "-euc", script]));
        done.expect_code(0).out()
    }

    #[track_caller]
    fn mount_disk(&self) {
        let disk = self.disk();
        self.shell(&format!(
            "mkdir -p {DISK}; mount -o loop {} {DISK}",
            disk.display()
        ));
    }

    /// `fairing` with the store on the disk, and the lines of its stderr that complain.
    #[track_caller]
    fn ask(&self, words: &[&str]) -> (Finished, Vec<String>) {
        let program = checkout().join("target/fairing");
        let program = program.to_str().expect("a path in UTF-8");
        let store = format!("--dir={DISK}/store");
        let etc = format!("--local-config={DISK}/etc");
        let done = finish(&mut self.command(&[&[program, &store, &etc], words].concat()));
        let complaint = |line: &&str| !line.starts_with("fairing: removing pod ");
        let complaints: Vec<_> = done
            .err()
            .lines()
            .filter(complaint)
            .map(str::to_owned)
            .collect();
        (done, complaints)
    }

    /// The same, which has nothing to complain of.
    #[track_caller]
    fn fairing(&self, words: &[&str]) -> Finished {
        let (done, complaints) = self.ask(words);
        assert_eq!(complaints, [""; 0], "{words:?}");
        done
    }

    /// Starts a pod whose app runs `script`, and gives its UUID once that has said `ready`.
    #[track_caller]
    fn start(&self, options: &[&str], script: &str) -> String {
        let image = test_image("busybox");
        let image = image.to_str().expect("a path in UTF-8");
        let script = proved(&format!("{script}; echo ready; {FOREVER}"));
        let app = [image, "--exec=/bin/sh", "--", "-c", &script];
        let run = [&["run", "-d"], options, &app].concat();
        let uuid = self.fairing(&run).expect_code(0).out().trim().to_owned();
        tests::wait_until("the app is ready", || {
            self.fairing(&["logs", &uuid]).out().contains("ready")
        });
        uuid
    }

    /// No write that the kernel still holds reaches the disk.
    fn cut_power(&self) {
        let mut reset = self.command(&["sh", "-c", "echo b >/proc/sysrq-trigger; sleep 1000"]);
        let lost = finish(&mut reset);
        assert!(thread::panicking() || lost.code == HOST_LOST, "{lost:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.cut_power();
    }
}

/// Lines that are there.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

#[test]
fn pods_of_a_host_whose_power_was_cut_have_exited_and_are_collected() {
    for _ in 0..rounds("power cuts of a host", 0, 1) {
        cut_power();
    }
}

fn cut_power() {
    let host = Host::new();
    host.mount_disk();
    host.shell(&format!("mkdir -p {DISK}/data {DISK}/etc/net.d"));
    // One whose addresses are kept where the host's end does not take them along.
    let ipam = json!({"type": "host-local", "subnet": "10.98.20.0/24", "dataDir": format!("{DISK}/leases")});
    let network = json!({"cniVersion": "1.0.0", "name": "kept", "plugins": [
        {"type": "bridge", "bridge": "testbr-kept", "ipMasq": true, "ipam": ipam}, {"type": "firewall"},
    ]});
    host.shell(&format!("echo '{network}' >{DISK}/etc/net.d/kept.conflist"));
    let addresses = || host.shell(&format!("cd {DISK}/leases/kept; ls -d 10.98.* || true"));
    let image = test_image("busybox");
    let image = image.to_str().expect("a path in UTF-8");
    let data = format!("-v={DISK}/data:/data");
    host.fairing(&["image", "import", image]).expect_code(0);
    let prepared = host.fairing(&["prepare", image, "--exec=/bin/true"]);
    let prepared = prepared.expect_code(0).out();
    let pods = [
        host.start(&[&data], ":"),
        host.start(&["--rootfs=shared", "--net=default,kept"], "echo x >/x"),
        host.start(&[], "echo x >/x"),
    ];
    let removed = host.start(&["--rm"], ":");
    let uid = uid_of(&host, &pods[2]);
    assert_ne!(files_of(&host, &uid), "");
    assert_eq!(addresses(), "10.98.20.2\n");
    host.shell("sync");
    // What of this one is on the disk when the power goes, nobody knows.
    let young = host.start(&[], ":");
    let keep = "echo kept | dd of=/data/kept conv=fsync 2>/dev/null";
    host.fairing(&["enter", &pods[0], "/bin/sh", "-c", keep])
        .expect_code(0);
    for uuid in &pods {
        let status = host.fairing(&["status", uuid]).expect_code(0);
        assert_eq!(status.value("state"), "running");
    }
    host.cut_power();

    host.mount_disk();
    let (list, complaints) = host.ask(&["list", "--no-legend", "--full"]);
    let of_young = |line: &String| line.contains(&young) && line.contains("stage 1 is lost");
    assert!(complaints.iter().all(of_young), "{complaints:?}");
    let list = list.expect_code(0).out();
    let state = |uuid: &str| {
        let pod = lines(&list).into_iter().find(|pod| pod.contains(uuid));
        pod.and_then(|pod| {
            pod.split_whitespace()
                .find(|word| ["exited", "prepared"].contains(word))
        })
    };
    assert!(
        pods.iter().all(|uuid| state(uuid) == Some("exited")),
        "{list}"
    );
    assert_eq!(state(prepared.trim()), Some("prepared"), "{list}");
    assert_eq!(state(&young), Some("exited"), "{list}");
    assert_eq!(state(&removed), None, "{list}");
    for uuid in &pods {
        let status = host.fairing(&["status", uuid]).expect_code(0);
        assert_eq!(status.value("state"), "exited");
        assert!(!status.out().contains("jail-"), "{}", status.out());
    }
    assert_eq!(host.shell(&format!("cat {DISK}/data/kept")), "kept\n");
    // The first command has taken networks down where a stage 1 was there to do it.
    assert_eq!(addresses(), "");
    let networks = host.shell(&format!("find {DISK}/store/pods -path '*/net/*'"));
    assert!(
        networks.lines().all(|path| path.contains(&young)),
        "{networks}"
    );
    expect_a_new_pod_to_have(&uid, &host);
    host.fairing(&["rm", prepared.trim()]).expect_code(0);
    host.fairing(&["rm", &pods[0], &young]).expect_code(0);
    host.fairing(&["gc", "--grace-period=0s"]).expect_code(0);
    let left = host.shell(&format!(
        "find {DISK}/store/pods -mindepth 2; grep {DISK}/store /proc/mounts || true; \
         find /sys/fs/cgroup -type d -name '*fairing*'; losetup -n -O NAME,BACK-FILE; ls {DISK}/store/store/tmp"
    ));
    assert!(
        matches!(lines(&left)[..], [only] if only.ends_with("/disk")),
        "{left}"
    );
}

/// The uid of a running pod's process.
#[track_caller]
fn uid_of(host: &Host, uuid: &str) -> String {
    let uids = host
        .fairing(&["status", uuid])
        .expect_code(0)
        .value("jail-uid");
    let uid = uids.split_whitespace().next().expect("a uid");
    uid.to_owned()
}

/// What of the pods' files belongs to `uid`.
#[track_caller]
fn files_of(host: &Host, uid: &str) -> String {
    host.shell(&format!("find {DISK}/store/pods -uid {uid}"))
}

/// That a new pod of the same image runs, and has the uid of a dead one, to which no file belongs any more.
#[track_caller]
fn expect_a_new_pod_to_have(uid: &str, host: &Host) {
    let uuid = host.start(&[], ":");
    assert_eq!(uid_of(host, &uuid), uid, "nothing claims uids any more");
    let files = files_of(host, uid);
    assert!(
        lines(&files).iter().all(|file| file.contains(&uuid)),
        "{files}"
    );
    host.fairing(&["stop", &uuid]).expect_code(0);
}

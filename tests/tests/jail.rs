//! The jail of a running pod, as the kernel shows it.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use tests::mounted::Mounted;
use tests::{fairing, finish, run_sh, temporary, wait, wait_until};

/// First uid of the range for pods.
const FIRST_UID: u32 = 0x7000_0000;

/// How many ids a pod with shared folders has.
const BLOCK: u32 = 65_536;

struct RunningPod {
    child: Child,
}

impl RunningPod {
    fn start(options: &[&str]) -> Self {
        let options = [&["--name=jailed"], options].concat();
        let mut command = run_sh(&options, "echo up; sleep 1000");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("fairing starts");
        let mut first = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first)
            .expect("the app's first line");
        Self { child }
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"))
    }

    fn field(&self, file: &str, name: &str) -> Vec<String> {
        let text = self.proc(file);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {file}"))
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn running_pod_is_jailed_as_status_says() {
    let pod = RunningPod::start(&[]);
    let uids = pod.field("status", "Uid");
    assert!(
        uids.iter()
            .all(|uid| uid.parse::<u32>().is_ok_and(|uid| uid >= FIRST_UID)),
        "{uids:?}"
    );
    assert_eq!(pod.field("status", "Groups"), Vec::<String>::new());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(pod.field("status", set), ["0000000000000000"], "{set}");
    }
    let mounts = pod.proc("mountinfo");
    let points: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert_eq!(points, ["/"], "{mounts}");
    let root: Vec<_> = fs::read_dir(format!("/proc/{}/root", pod.child.id()))
        .expect("the pod's root")
        .flatten()
        .collect();
    assert_eq!(root.len(), 0, "{root:?}");

    let tasks: Vec<_> = fs::read_dir(format!("/proc/{}/task", pod.child.id()))
        .expect("the pod's threads")
        .flatten()
        .collect();
    assert!(tasks.len() >= 5, "{} threads", tasks.len());
    for task in &tasks {
        let file = format!("task/{}/status", task.file_name().display());
        assert_eq!(pod.field(&file, "Seccomp"), ["2"], "{file}");
        assert_eq!(pod.field(&file, "NoNewPrivs"), ["1"], "{file}");
        // The process's filter and the thread's own.
        assert_eq!(
            pod.field(&file, "Seccomp_filters"),
            ["2"],
            "{file}: {}",
            pod.proc(&file)
        );
    }
    check_descriptors(&pod);

    let list = finish(fairing().args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    let line = list
        .lines()
        .find(|line| line.contains("running") && line.contains("jailed"));
    let uuid = line
        .unwrap_or_else(|| panic!("no running pod in {list}"))
        .split_whitespace()
        .next()
        .expect("a UUID")
        .to_owned();
    let status = finish(fairing().args(["status", &uuid]))
        .expect_code(0)
        .out();
    assert!(
        status.contains("state=running") && status.contains(&uids[0]),
        "{status}"
    );
    stop(pod, &uuid);
}

/// Nothing open but stdio, the lock, the image and scratch disks, and kernel objects without a name.
fn check_descriptors(pod: &RunningPod) {
    let folder = format!("/proc/{}/fd", pod.child.id());
    for descriptor in fs::read_dir(&folder)
        .expect("the pod's descriptors")
        .flatten()
    {
        let number: u32 = descriptor
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a number");
        let target = fs::read_link(descriptor.path())
            .expect("a link")
            .display()
            .to_string();
        let expected = number < 3
            || ["anon_inode:", "socket:"]
                .iter()
                .any(|kind| target.starts_with(kind))
            || ["rootfs.erofs", "rootfs.erofs.1", "scratch.ext4", "vmlinux", "initramfs"]
                .iter()
                .any(|name| target.ends_with(name))
            || target.contains("/pods/run/")
            // The share's own files, and the process's descriptors for the file server.
            || target.starts_with("/0")
            || target == "/"
            // The log of its app, in the report folder.
            || target == "/log/jailed"
            || target == format!("/{}/fd", pod.child.id())
            || target.starts_with("/run/fairing/uids/")
            || target == "/dev/kvm";
        assert!(expected, "descriptor {number} is {target}");
    }
}

/// The capabilities of a file server: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, SETFCAP.
const OF_FILE_SERVER: &str = "00000000800000db";

#[test]
fn pod_with_a_folder_whose_owners_can_be_mapped_has_uids_of_its_own() {
    let folder = temporary("fairing-jail-");
    let disk = Mounted::ext4(folder.path(), "disk");
    fs::remove_dir(disk.path().join("lost+found")).expect("a new file system");
    fs::write(disk.path().join("file"), "").expect("a file");
    let root = expect_jail_with_shares(disk.path());
    assert!(
        root > FIRST_UID && root.is_multiple_of(BLOCK),
        "uid 0 is {root}"
    );
}

#[test]
fn pod_with_a_folder_whose_owners_cannot_be_mapped_has_all_ids_as_they_are() {
    let folder = temporary("fairing-jail-");
    let layers = ["upper", "lower"].map(|name| folder.path().join(name));
    let made = layers.iter().try_for_each(fs::create_dir);
    made.and_then(|()| fs::write(layers[0].join("file"), ""))
        .expect("two folders");
    let [upper, lower] = layers.each_ref().map(|layer| layer.display());
    let options = format!("lowerdir={upper}:{lower}");
    let at = folder.path().join("overlay");
    let overlay = Mounted::new("overlay", &options, Path::new("none"), at);
    assert_eq!(expect_jail_with_shares(overlay.path()), 0);
}

/// Runs a pod with this folder, which sees it alone and has power in its own namespace only; gives the host's number of its root.
fn expect_jail_with_shares(folder: &Path) -> u32 {
    let source = folder.display();
    let volume = format!("--volume=data,kind=host,source={source},readOnly=true");
    // The same share by another file server.
    let again = format!("-v={source}:/again:ro,cache=none");
    let pod = RunningPod::start(&[&volume, "--mount=volume=data,target=/data", &again]);
    assert_eq!(pod.field("status", "Groups"), Vec::<String>::new());
    for (set, expected) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", OF_FILE_SERVER),
        ("CapEff", OF_FILE_SERVER),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(pod.field("status", set), [expected], "{set}");
    }
    let namespace = |pid: &str, kind: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace")
    };
    for kind in ["user", "mnt", "ipc"] {
        let own = namespace(&pod.child.id().to_string(), kind);
        assert_ne!(own, namespace("self", kind), "{kind}");
    }
    let mounts = pod.proc("mountinfo");
    let points: Vec<_> = mounts
        .lines()
        .map(|line| line.split(' ').skip(4).take(2).collect::<Vec<_>>())
        .collect();
    let [root, share] = &points[..] else {
        panic!("{mounts}");
    };
    assert_eq!((root[0], share[0]), ("/", "/0"), "{mounts}");
    for attribute in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(
            root[1].contains(attribute) && share[1].contains(attribute),
            "{mounts}"
        );
    }
    let inside = fs::read_dir(format!("/proc/{}/root/0", pod.child.id())).expect("the share");
    let names: Vec<_> = inside.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["file"]);
    let mut file_servers = 0;
    for task in fs::read_dir(format!("/proc/{}/task", pod.child.id()))
        .expect("the pod's threads")
        .flatten()
    {
        let name = pod.proc(&format!("task/{}/comm", task.file_name().display()));
        file_servers += usize::from(name == "fs\n");
        let file = format!("task/{}/status", task.file_name().display());
        assert_eq!(pod.field(&file, "Seccomp_filters"), ["2"], "{file}");
        assert_eq!(pod.field(&file, "NoNewPrivs"), ["1"], "{file}");
    }
    assert_eq!(file_servers, 2);
    check_descriptors(&pod);
    let uids = pod.field("status", "Uid");
    assert!(uids.iter().all(|uid| *uid == uids[0]), "{uids:?}");
    assert_eq!(pod.field("status", "Gid"), uids);
    let list = finish(fairing().args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    let uuid = list.split_whitespace().next().expect("a UUID").to_owned();
    let told = finish(fairing().args(["status", &uuid])).expect_code(0);
    let told = told.value("jail-uid");
    assert_eq!(told.split_whitespace().next(), Some(&*uids[0]), "{told}");
    stop(pod, &uuid);
    uids[0].parse().expect("a uid")
}

fn stop(pod: RunningPod, uuid: &str) {
    let pid = pod.child.id();
    finish(fairing().args(["stop", "--force", uuid])).expect_code(0);
    wait(pod.child).expect_code(137);
    wait_until("the killed pod's process is gone", || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
    });
    let list = finish(fairing().args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    assert!(
        list.lines()
            .any(|line| line.contains(&uuid[..8]) && line.contains("exited")),
        "{list}"
    );
    finish(fairing().args(["rm", uuid])).expect_code(0);
    let list = finish(fairing().args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    assert!(!list.contains(&uuid[..8]), "{list}");
}

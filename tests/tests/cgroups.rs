//! Where the host's cap on a pod's process is: below systemd, without root, and where cgroups are version 1's.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::home::{Home, USER, kvm_group};
use tests::running::Running;
use tests::systemd::{Service, Systemd};
use tests::{fairing, finish, run_sh, temporary};

/// What the host caps of each pod here.
const HALF_A_CPU: &str = "cpu.max:50000 100000,memory.max:";

const SCRIPT: &str = "echo ready; exec sleep 1000";

/// A pod as a service.
struct Pod<'a> {
    service: &'static str,
    uuid: String,
    fairing: &'a dyn Fn() -> Command,
}

impl Pod<'_> {
    /// What `fairing status` says of `key`, asked in the container.
    #[track_caller]
    fn status(&self, systemd: &Systemd, key: &str) -> String {
        let mut status = (self.fairing)();
        systemd
            .run(status.args(["status", &self.uuid]))
            .expect_code(0)
            .value(key)
    }

    /// That it is in this cgroup and capped there, and ends with its unit.
    #[track_caller]
    fn expect_in(&self, systemd: &Systemd, parent: &str) {
        let cgroup = format!("{parent}/{}", self.uuid);
        assert_eq!(
            self.status(systemd, "jail-cgroup"),
            cgroup,
            "{}",
            self.service
        );
        let limits = self.status(systemd, "jail-cgroup-limits");
        assert!(limits.starts_with(HALF_A_CPU), "{}: {limits}", self.service);
        let group = systemd.cgroup(&cgroup);
        assert!(group.is_dir());
        systemd
            .run(Command::new("systemctl").args(["stop", self.service]))
            .expect_code(0);
        assert_eq!(self.status(systemd, "state"), "exited", "{}", self.service);
        let mut gc = (self.fairing)();
        systemd
            .run(gc.args(["gc", "--grace-period=0s"]))
            .expect_code(0);
        assert!(!group.exists(), "{}", group.display());
    }
}

#[test]
fn pod_in_a_unit_of_systemds_is_capped_below_it_if_that_is_delegated_and_beside_it_if_not() {
    let folder = temporary("fairing-cgroups-");
    let home = Home::new(&["busybox"]);
    let uuid_file = |service: &str| match service {
        "users" => home.path("uuid"),
        _ => folder.path().join(service),
    };
    let run = |service: &str, mut command: Command| {
        let save = format!("--uuid-file-save={}", uuid_file(service).display());
        command.args(["run", "--cpu=500m", &save]);
        command
    };
    let app = ["--exec=/bin/sh", "--", "-c", &tests::proved(SCRIPT)].map(str::to_owned);
    let of_root = |service| {
        let mut command = run(service, fairing());
        command.arg(tests::test_image("busybox")).args(&app);
        command
    };
    let users = || {
        let mut command = Command::new(home.path("fairing"));
        command.arg("--dir").arg(home.path("store"));
        command.arg("--system-config").arg(home.path("etc"));
        command
    };
    let mut of_user = run("users", users());
    of_user.arg("--stage1").arg(home.path("stage1-kvm"));
    of_user.arg(home.path("busybox")).args(&app);
    let user = format!(
        "User={USER}\nSupplementaryGroups={}\nDelegate=yes",
        kvm_group()
    );
    let systemd = Systemd::start(&[
        Service {
            name: "plain",
            settings: "",
            command: of_root("plain"),
        },
        Service {
            name: "delegated",
            settings: "Delegate=yes",
            command: of_root("delegated"),
        },
        Service {
            name: "users",
            settings: &user,
            command: of_user,
        },
    ]);
    for (service, parent) in [
        ("plain", "/fairing"),
        ("delegated", "/system.slice/delegated.service"),
        ("users", "/system.slice/users.service"),
    ] {
        systemd.wait_until_said(service, "ready");
        let uuid = fs::read_to_string(uuid_file(service)).expect("the pod's UUID");
        let uuid = uuid.trim().to_owned();
        let fairing: &dyn Fn() -> Command = if service == "users" { &users } else { &fairing };
        Pod {
            service,
            uuid,
            fairing,
        }
        .expect_in(&systemd, parent);
    }
}

/// Runs a pod that has half a CPU by `command`, which ends with the words of `fairing run`, and expects that the machine keeps the
/// limit and the host none, because of `reason`.
#[track_caller]
fn expect_uncapped(
    command: &mut Command,
    file: &Path,
    status: impl FnOnce(&str) -> Command,
    reason: &str,
) {
    let mut pod = Running::with_stdin(command);
    assert_eq!(pod.line(), "50000 100000");
    let uuid = fs::read_to_string(file).expect("the pod's UUID");
    let status = finish(&mut status(uuid.trim())).expect_code(0);
    assert_eq!(status.value("jail-cgroup"), "none");
    assert_eq!(status.value("jail-cgroup-limits"), "");
    let told = pod.finish().expect_code(1).err();
    let warning = "warning: the host does not cap the pod's process: ";
    assert!(told.contains(warning) && told.contains(reason), "{told}");
}

const SHOW_CAP: &str = "cat /sys/fs/cgroup/cpu.max; read line";

#[test]
fn pod_of_a_user_without_a_delegated_cgroup_is_capped_by_its_machine_alone() {
    let home = Home::new(&["odd"]);
    let group = kvm_group();
    let file = home.path("uuid");
    let save = format!("--uuid-file-save={}", file.display());
    let mut run = home.run(&group, &["--cpu=500m", &save], SHOW_CAP);
    let status = |uuid: &str| {
        let mut status = home.fairing(&group);
        status.args(["status", uuid]);
        status
    };
    expect_uncapped(&mut run, &file, status, "delegated to the user");
}

/// The tree as systemd makes it where version 1 has controllers, of which the host's other trees leave the freezer.
const HYBRID: &str = "mount -t tmpfs tmpfs /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir systemd freezer unified; \
    mount -t cgroup -o none,name=systemd cgroup systemd; mount -t cgroup -o freezer cgroup freezer; \
    mount -t cgroup2 cgroup2 unified; exec \"$@\"";

#[test]
fn pod_on_a_host_with_cgroups_of_version_1_is_capped_by_its_machine_alone() {
    let folder = temporary("fairing-cgroups-");
    let file = folder.path().join("uuid");
    let save = format!("--uuid-file-save={}", file.display());
    let run = run_sh(&["-i", "--rm", "--cpu=500m", &save], SHOW_CAP);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", HYBRID, "sh"]);
    command.arg(run.get_program()).args(run.get_args());
    let status = |uuid: &str| {
        let mut status = fairing();
        status.args(["status", uuid]);
        status
    };
    expect_uncapped(&mut command, &file, status, "version 1");
}

//! Containers inside the pod: namespaces in namespaces, cgroups with their controllers, programs attached to them.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::raw;

pub const FEATURES: &[crate::Feature] = &[
    ("namespaces", namespaces),
    ("nested_user_namespaces", nested_user_namespaces),
    ("pid_namespace", pid_namespace),
    ("time_namespace", time_namespace),
    ("uts_namespace", uts_namespace),
    ("cgroup_controllers", cgroup_controllers),
    ("cgroup_limits", cgroup_limits),
    ("cgroup_device_program", cgroup_device_program),
    ("cgroup_network_program", cgroup_network_program),
];

/// Becomes root of a new user namespace with mounts of its own.
pub fn in_user_namespace() -> Result<()> {
    in_user_namespace_with(CloneFlags::empty())
}

/// The same, with further namespaces that belong to it.
pub fn in_user_namespace_with(further: CloneFlags) -> Result<()> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | further)
        .context("unshare a user namespace")?;
    fs::write("/proc/self/setgroups", "deny").context("deny setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("map the user")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("map the group")
}

/// Mounts a file system of `kind` on `folder`.
pub fn mount(source: &str, folder: &Path, kind: &str, options: &str) -> Result<()> {
    nix::mount::mount(
        Some(source),
        folder,
        Some(kind),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("mount {kind}"))
}

fn namespaces() -> Result<()> {
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        ensure!(
            fs::read_link(format!("/proc/self/ns/{kind}")).is_ok(),
            "{kind} is missing"
        );
    }
    Ok(())
}

fn nested_user_namespaces() -> Result<()> {
    for level in 1..=3 {
        in_user_namespace_with(
            CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP,
        )
        .with_context(|| format!("level {level}"))?;
    }
    Ok(())
}

/// The first child is PID 1 there. It is asked itself: the /proc in sight still shows the PIDs outside.
fn pid_namespace() -> Result<()> {
    in_user_namespace_with(CloneFlags::CLONE_NEWPID)?;
    let first = Command::new("/proc/self/exe")
        .arg(crate::PRINT_PID)
        .output()
        .context("start the first process")?;
    ensure!(
        first.stdout == b"1\n",
        "its PID is {}",
        String::from_utf8_lossy(&first.stdout).trim()
    );
    Ok(())
}

fn time_namespace() -> Result<()> {
    const CLONE_NEWTIME: i64 = 0x80;
    raw::call(libc::SYS_unshare, [CLONE_NEWTIME])
        .context("unshare")
        .map(drop)
}

fn uts_namespace() -> Result<()> {
    in_user_namespace_with(CloneFlags::CLONE_NEWUTS)?;
    nix::unistd::sethostname("inside").context("sethostname")?;
    ensure!(
        nix::unistd::gethostname()? == "inside",
        "another name came out"
    );
    Ok(())
}

fn cgroup_controllers() -> Result<()> {
    let tree = cgroup_tree()?;
    let found = fs::read_to_string(tree.path().join("cgroup.controllers"))?;
    for name in ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"] {
        ensure!(
            found.split_whitespace().any(|word| word == name),
            "{name} is missing (found {})",
            found.trim()
        );
    }
    Ok(())
}

fn cgroup_limits() -> Result<()> {
    let tree = cgroup_tree()?;
    make_room(tree.path())?;
    fs::write(
        tree.path().join("cgroup.subtree_control"),
        "+cpu +memory +pids +io",
    )
    .context("enable controllers")?;
    let group = Group::make(tree.path())?;
    for (file, value) in [
        ("cpu.max", "50000 100000"),
        ("memory.max", "64M"),
        ("pids.max", "10"),
    ] {
        fs::write(group.0.join(file), value).with_context(|| format!("write {file}"))?;
    }
    for file in ["io.max", "memory.pressure", "cgroup.kill", "cgroup.freeze"] {
        ensure!(group.0.join(file).exists(), "{file} is missing");
    }
    Ok(())
}

/// Moves all processes of a cgroup into one below it, as systemd does: only a cgroup without any can pass controllers on.
fn make_room(cgroup: &Path) -> Result<()> {
    let leaf = cgroup.join("leaf");
    fs::create_dir_all(&leaf).context("make a cgroup for the processes")?;
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).context("read cgroup.procs")?;
    for process in processes.lines() {
        // Kernel threads of a machine's own root stay where they are.
        let _ = fs::write(leaf.join("cgroup.procs"), process);
    }
    Ok(())
}

fn cgroup_device_program() -> Result<()> {
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    attach_program(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE)
}

fn cgroup_network_program() -> Result<()> {
    const BPF_PROG_TYPE_CGROUP_SKB: u32 = 8;
    const BPF_CGROUP_INET_EGRESS: u32 = 1;
    attach_program(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS)
}

fn attach_program(program_type: u32, attach_type: u32) -> Result<()> {
    const ALLOW: [u64; 2] = [0x0000_0001_0000_00b7, 0x95]; // r0 = 1; exit
    let tree = cgroup_tree()?;
    let group = Group::make(tree.path())?;
    let program = raw::bpf_load(program_type, &ALLOW)?;
    raw::bpf_attach(File::open(&group.0)?, program, attach_type)
}

/// A mount of the cgroup tree of our own: the pod's may be read-only.
struct Tree(tempfile::TempDir);

impl Tree {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What stays mounted goes with the mount namespace of this trial.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn cgroup_tree() -> Result<Tree> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts")?;
    let nowhere = None::<&str>;
    nix::mount::mount(
        nowhere,
        "/",
        nowhere,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nowhere,
    )
    .context("private mounts")?;
    let folder = tempfile::tempdir()?;
    mount("cgroup2", folder.path(), "cgroup2", "")?;
    Ok(Tree(folder))
}

/// A cgroup that is removed again.
struct Group(std::path::PathBuf);

impl Group {
    fn make(tree: &Path) -> Result<Self> {
        let folder = tree.join(format!("kernel-features-{}", std::process::id()));
        fs::create_dir(&folder).context("make a cgroup")?;
        Ok(Self(folder))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

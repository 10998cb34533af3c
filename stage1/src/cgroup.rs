//! The pod's cgroup on the host, which caps the machine's process as a whole: `/fairing/UUID`, or, where the caller's own
//! cgroup was delegated to him (a systemd unit with `Delegate=yes`), `UUID` below that. Version 2 only.
//!
//! `run` makes it, moves itself into it, and caps it once it knows at what; `gc` removes it. Without it a pod runs all the
//! same: its limits then hold in the guest alone, which `fairing status` shows.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use contract::PodDir;
use guest_init::protocol::Limits;
use guest_init::{cgroup_files, oom_kills};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use rustix::fs::{getxattr, major, minor};
use userns::Child;

use crate::volumes::Share;

/// Where the tree of cgroups is mounted on any host of these years.
const TREE: &str = "/sys/fs/cgroup";

/// The cgroup of all pods that were not started from a delegated one.
const PARENT: &str = "fairing";

/// By what systemd marks a cgroup that its user or its unit may divide.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// How long a process that ends may take to leave its cgroup, milliseconds.
const LEAVING_MS: u16 = 1000;

/// Type of a ramfs, statfs(2).
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// How often the common parent may vanish, with the last pod of another, before a pod has its place in it.
const TRIES: usize = 16;

/// The file that lists a cgroup's processes, and takes more.
const PROCESSES: &str = "cgroup.procs";

/// Controllers of what caps pods whatever is asked for.
const ALWAYS: [&str; 2] = ["memory", "pids"];

/// The cgroup that this process, which becomes the pod's, enters.
pub struct Cgroup {
    /// Its folder.
    group: PathBuf,
    /// The parent is the caller's own cgroup: it can have limits below it only when he has left it.
    parent_is_own: bool,
    moving: Option<Child>,
    /// What could not be had.
    refused: Vec<String>,
}

impl Cgroup {
    /// Makes the cgroup of the pod `uuid` and begins to move this process into it, which must have a single thread.
    ///
    /// # Errors
    /// With what the host lacks; the pod runs all the same.
    pub fn enter(pod: &PodDir, uuid: &str) -> Result<Self> {
        let (parent, parent_is_own) = parent()?;
        let name = parent.join(uuid);
        // Before it is there: nothing may be left that gc does not find.
        fs::write(pod.subcgroup(), format!("{}\n", name.display()))
            .context("write the name of the pod's cgroup")?;
        let mut cgroup = Self {
            group: folder_of(&name),
            parent_is_own,
            moving: None,
            refused: Vec::new(),
        };
        let entered = cgroup.make().and_then(|()| cgroup.begin_to_move());
        let group = &cgroup.group;
        if entered.is_err() && (fs::remove_dir(group).is_ok() || !group.exists()) {
            leave_parent(group);
            let _ = fs::remove_file(pod.subcgroup());
        }
        entered.map(|()| cgroup)
    }

    /// Waits until this process is in it: what it executes and takes from now on is, too.
    ///
    /// # Errors
    /// When it cannot be moved there.
    pub fn arrive(&mut self) -> Result<()> {
        let arrived = self.moving.take().map_or(Ok(()), Child::wait);
        arrived.with_context(|| format!("join cgroup {}", self.group.display()))
    }

    fn make(&self) -> Result<()> {
        let mut tries = (0..TRIES).map(|_| fs::create_dir_all(&self.group));
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let made = tries.find(|made| !made.as_ref().is_err_and(is_gone));
        made.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
            .with_context(|| format!("make cgroup {}", self.group.display()))
    }

    fn begin_to_move(&mut self) -> Result<()> {
        if self.parent_is_own {
            // Only a cgroup that has no process of its own hands anything down.
            fs::write(self.group.join(PROCESSES), "0")
                .with_context(|| format!("join cgroup {}", self.group.display()))?;
        }
        self.hand_down(&ALWAYS);
        if !self.parent_is_own {
            self.moving = Some(start_moving(&self.group)?);
        }
        Ok(())
    }

    /// Hands controllers down to the cgroup, from the root of the tree where that is fairing's to do.
    fn hand_down(&mut self, controllers: &[&str]) {
        let above = self.group.ancestors().skip(1);
        let above: Vec<_> = above.take(if self.parent_is_own { 1 } else { 2 }).collect();
        for cgroup in above.into_iter().rev() {
            let file = cgroup.join("cgroup.subtree_control");
            let given = fs::read_to_string(&file).unwrap_or_default();
            let is_given = |wanted: &&&str| given.split_whitespace().any(|given| given == **wanted);
            let missing = controllers.iter().filter(|wanted| !is_given(wanted));
            let missing: Vec<_> = missing.map(|wanted| format!("+{wanted}")).collect();
            // All at once, which costs the kernel once; one by one only to tell which it does not have.
            if missing.is_empty() || fs::write(&file, missing.join(" ")).is_ok() {
                continue;
            }
            for controller in missing {
                if let Err(error) = fs::write(&file, &controller) {
                    self.refused
                        .push(format!("{controller} in {} ({error})", file.display()));
                }
            }
        }
    }

    /// Caps what is in the cgroup.
    ///
    /// Files on a file system that is memory are charged to who writes them: where the pod's own files or a share lie on one,
    /// its memory cannot be capped at what the machine takes, and is not.
    pub fn cap(&mut self, pod: &PodDir, caps: &Limits, shares: &[Share]) {
        let sources = shares.iter().map(|share| share.source.as_path());
        let in_memory = std::iter::once(pod.path()).chain(sources).any(is_in_memory);
        let caps = &Limits {
            memory_bytes: caps.memory_bytes.filter(|_| !in_memory),
            ..*caps
        };
        let disk = caps.are_of_disks().then(|| disk_of(pod.path())).flatten();
        let files = settings(caps, disk.as_deref());
        let mut more = controllers(&files);
        more.retain(|controller| !ALWAYS.contains(controller));
        self.hand_down(&more);
        for (file, value) in files {
            if let Err(error) = fs::write(self.group.join(file), &value) {
                self.refused.push(format!("{file} to {value:?} ({error})"));
            }
        }
    }
}

/// Waits until the process is in the cgroup that it `entered`. Gives what of `caps` cannot be had, in one line; the machine itself keeps some
/// of them, if not as exactly.
pub fn arrive(entered: Result<Cgroup>, caps: &Limits) -> Option<String> {
    let arrived = entered.and_then(|mut cgroup| {
        cgroup.arrive()?;
        Ok(cgroup.refused.join(", "))
    });
    match arrived {
        Ok(refused) => (!refused.is_empty())
            .then(|| format!("the host does not cap all of the pod's process: set {refused}")),
        Err(error) => (caps.cpu_milli.is_some() || caps.are_of_disks())
            .then(|| format!("the host does not cap the pod's process: {error:#}")),
    }
}

/// Caps anew what is capped of the pod in the working directory: at `caps`, or, while it is `growing`, at no less memory than before.
///
/// # Errors
/// When the kernel refuses.
pub fn recap(pod: &PodDir, caps: &Limits, growing: bool) -> Result<()> {
    let Ok(group) = fs::read_to_string(pod.subcgroup()) else {
        return Ok(());
    };
    for (file, value) in settings(caps, None) {
        let file = folder_of(Path::new(group.trim())).join(file);
        let now = fs::read_to_string(&file).unwrap_or_default();
        let stays = growing && now.trim().parse::<u64>().ok() > value.parse().ok();
        if !(stays || now.is_empty() || now.starts_with("max")) {
            let written = fs::write(&file, &value);
            written.with_context(|| format!("write {value:?} to {}", file.display()))?;
        }
    }
    Ok(())
}

/// Removes the cgroup of the pod in the working directory, if it is there.
///
/// # Errors
/// When processes are in it.
pub fn remove(pod: &PodDir, uuid: &str) -> Result<()> {
    let path = match fs::read_to_string(pod.subcgroup()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        path => path.context("read the name of the pod's cgroup")?,
    };
    let path = Path::new(path.trim());
    if path.as_os_str().is_empty() {
        // The host lost its power before the name was on the disk, and the cgroup with it.
        return Ok(());
    }
    let climbs = |part| !matches!(part, Component::RootDir | Component::Normal(_));
    let is_pods = path.file_name() == Some(OsStr::new(uuid)) && path.is_absolute();
    ensure!(
        is_pods && !path.components().any(climbs),
        "{} cannot be the pod's cgroup",
        path.display()
    );
    let group = folder_of(path);
    if oom_kills(&group) > 0 {
        fs::write(pod.out_of_memory(), "").context("say that the pod's memory was too little")?;
    }
    match remove_once_empty(&group) {
        // Never made, removed before, or the host has been restarted.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.with_context(|| format!("remove cgroup {}", group.display()))?,
    }
    leave_parent(&group);
    Ok(())
}

/// Removes what is common to all pods, and there only as long as one is.
fn leave_parent(group: &Path) {
    if let Some(parent) = group.parent().filter(|parent| parent.ends_with(PARENT)) {
        let _ = fs::remove_dir(parent);
    }
}

/// The pod's lock is let go of before its process has left: for that, if need be, it is waited.
fn remove_once_empty(group: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        let mut events = File::open(group.join("cgroup.events"))?;
        // What has been read is what a later change is told of.
        io::read_to_string(&mut events)?;
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            result => return result,
        }
        let mut change = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        poll(&mut change, PollTimeout::from(LEAVING_MS))?;
    }
    fs::remove_dir(group)
}

fn is_in_memory(path: &Path) -> bool {
    let kind = statfs(path).map(|found| found.filesystem_type());
    kind.is_ok_and(|kind| kind == TMPFS_MAGIC || kind.0 == RAMFS_MAGIC)
}

/// The folder of a cgroup.
fn folder_of(cgroup: &Path) -> PathBuf {
    Path::new(TREE).join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}

/// Path of the cgroup that the pod's can be in, from the root of the tree on, and whether it is the caller's own.
fn parent() -> Result<(PathBuf, bool)> {
    let magic = statfs(TREE).with_context(|| format!("look at {TREE}"))?;
    ensure!(
        magic.filesystem_type() == CGROUP2_SUPER_MAGIC,
        "{TREE} is not the unified tree of cgroups (version 2); with version 1 a pod's process has no limits of its own"
    );
    let of_process = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let own = own(&of_process).context("this process has no cgroup of version 2")?;
    let mut value = [0; 1];
    let is_delegated = DELEGATED
        .iter()
        .any(|name| getxattr(folder_of(own), *name, &mut value[..]).is_ok() && value == *b"1");
    if is_delegated {
        return Ok((own.to_owned(), true));
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "without root it needs a cgroup that is delegated to the user (systemd: Delegate=yes)"
    );
    Ok((Path::new("/").join(PARENT), false))
}

/// The unified cgroup, of a process's list of them.
fn own(list: &str) -> Option<&Path> {
    let own = list.lines().find_map(|line| line.strip_prefix("0::"));
    own.map(Path::new)
}

/// Has a child move this process, which can go on: the host's kernel first waits for a grace period of RCU, milliseconds.
fn start_moving(group: &Path) -> Result<Child> {
    let path = group.join(PROCESSES);
    let processes = File::options().write(true).open(&path);
    let processes = processes.with_context(|| format!("open {}", path.display()))?;
    let process = std::process::id().to_string();
    let child = Child::start(processes, |mut processes| {
        processes.write_all(process.as_bytes())
    })?;
    child.put_first();
    Ok(child)
}

/// The controllers whose files these are: one that nobody needs costs time and memory.
fn controllers<'a>(files: &[(&'a str, String)]) -> Vec<&'a str> {
    let mut names: Vec<_> = files
        .iter()
        .filter_map(|(file, _)| file.split('.').next())
        .collect();
    names.dedup();
    names
}

/// The files of the pod's cgroup, and what they say; `disk` as `MAJOR:MINOR`.
fn settings(caps: &Limits, disk: Option<&str>) -> Vec<(&'static str, String)> {
    // The machine dies as a whole.
    let whole = ("memory.oom.group", "1".to_owned());
    let whole = caps.memory_bytes.map(|_| whole).into_iter();
    // Where the files lie on no disk of their own, the kernel says so.
    let disk = disk.unwrap_or("0:0").to_owned();
    whole.chain(cgroup_files(caps, &[disk])).collect()
}

/// The whole disk that `path` lies on, `MAJOR:MINOR`; `None` for file systems without one.
fn disk_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(path).ok()?.dev();
    let folder = PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        major(device),
        minor(device)
    ));
    let folder = fs::canonicalize(folder).ok()?;
    let whole = match folder.join("partition").exists() {
        true => folder.parent()?,
        false => &folder,
    };
    let number = fs::read_to_string(whole.join("dev")).ok()?;
    Some(number.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Limits = Limits {
        cpu_milli: None,
        cpu_weight: None,
        memory_bytes: Some(1 << 30),
        processes: Some(40),
        disk_bytes: None,
        disk_operations: None,
    };

    #[test]
    fn files_say_what_is_capped() {
        let text = |caps: &Limits| {
            let files = settings(caps, Some("8:0")).into_iter();
            let lines: Vec<_> = files
                .map(|(file, value)| format!("{file}={value}"))
                .collect();
            lines.join(";")
        };
        let least = "memory.oom.group=1;memory.max=1073741824;pids.max=40";
        assert_eq!(text(&CAPS), least);
        assert_eq!(controllers(&settings(&CAPS, None)), ["memory", "pids"]);
        let caps = Limits {
            cpu_milli: Some(1250),
            disk_bytes: Some(5),
            disk_operations: Some(6),
            ..CAPS
        };
        let more = "cpu.max=125000 100000;io.max=8:0 rbps=5 wbps=5 riops=6 wiops=6";
        assert_eq!(text(&caps), format!("{least};{more}"));
    }

    #[test]
    fn own_cgroup_is_the_unified_one() {
        let hybrid = "4:memory:/a\n1:name=systemd:/b\n0::/user.slice/x.scope\n";
        assert_eq!(own(hybrid), Some(Path::new("/user.slice/x.scope")));
        assert_eq!(own("4:memory:/a\n"), None);
    }

    #[test]
    fn cgroup_to_remove_is_the_pods_own_or_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let pod = PodDir::new(folder.path());
        remove(&pod, "uuid").expect("a pod without a cgroup");
        for wrong in ["/fairing/other", "fairing/uuid", "/fairing/../uuid", "/"] {
            fs::write(pod.subcgroup(), wrong).expect("a file");
            assert!(remove(&pod, "uuid").is_err(), "{wrong:?}");
        }
        for gone in ["/fairing-that-never-was/uuid\n", ""] {
            fs::write(pod.subcgroup(), gone).expect("a file");
            remove(&pod, "uuid").expect("one that is gone");
        }
    }
}

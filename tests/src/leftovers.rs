//! What fairing may leave on a host: processes, mounts, locks, files, cgroups; to be compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{finish, installation};

/// Where pods claim their uids.
const CLAIMS: &str = "/run/fairing";

/// Everything there is of fairing, one line each.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// What there is now.
    pub fn now() -> Self {
        let files = lines_of(find().args(["-printf", "%i %p\\n"]));
        let mut all: BTreeSet<_> = files
            .iter()
            .filter_map(|file| Some(format!("file {}", file.split_once(' ')?.1)))
            .collect();
        let inodes: BTreeSet<_> = files
            .iter()
            .filter_map(|file| file.split(' ').next())
            .collect();
        all.extend(
            locks()
                .into_iter()
                .filter(|inode| inodes.contains(&**inode))
                .map(|inode| format!("lock on inode {inode}")),
        );
        all.extend(processes());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
        all.extend(mounts.lines().map(|mount| format!("mount {mount}")));
        let cgroups = ["/sys/fs/cgroup", "-type", "d", "-printf", "cgroup %p\\n"];
        let cgroups = lines_of(Command::new("find").args(cgroups)).into_iter();
        all.extend(cgroups.filter(|cgroup| !is_of_another_command(cgroup)));
        Self(all)
    }

    /// Those that are not among `earlier`.
    pub fn since<'a>(&'a self, earlier: &'a Self) -> Vec<&'a str> {
        self.0.difference(&earlier.0).map(String::as_str).collect()
    }

    /// Those that hold something as long as they are there: all but files and cgroups, which are empty without their processes.
    pub fn alive_since<'a>(&'a self, earlier: &'a Self) -> Vec<&'a str> {
        let since = self.since(earlier).into_iter();
        since
            .filter(|line| !line.starts_with("file ") && !line.starts_with("cgroup "))
            .collect()
    }
}

/// The cgroup of all pods that were not started from a delegated one.
pub const PODS: &str = "/sys/fs/cgroup/fairing";

/// Asserts that [`PODS`] is gone with the last pod's: it is not empty.
#[track_caller]
pub fn expect_no_empty_cgroup_of_pods() {
    let is_pods = |entry: fs::DirEntry| entry.path().is_dir();
    // Pods that have ended keep theirs until they are removed.
    let others = fs::read_dir(PODS).map(|entries| entries.flatten().any(is_pods));
    assert!(others.unwrap_or(true), "{PODS} is left empty");
}

/// Whether scripts/on-kvm made the cgroup: on a kept host other commands come and go.
fn is_of_another_command(cgroup: &str) -> bool {
    let path = cgroup.strip_prefix("cgroup /sys/fs/cgroup/on-kvm/");
    path.is_some_and(|command| !command.contains('/'))
}

fn find() -> Command {
    let mut find = Command::new("find");
    find.arg(installation());
    if Path::new(CLAIMS).exists() {
        find.arg(CLAIMS);
    }
    find
}

fn lines_of(command: &mut Command) -> Vec<String> {
    let output = finish(command).expect_code(0).out();
    output.lines().map(str::to_owned).collect()
}

/// Inodes of locked files.
fn locks() -> Vec<String> {
    let locks = fs::read_to_string("/proc/locks").expect("the lock table");
    let inode = |lock: &str| {
        Some(
            lock.split_whitespace()
                .find(|word| word.matches(':').count() == 2)?
                .rsplit(':')
                .next()?
                .to_owned(),
        )
    };
    locks.lines().filter_map(inode).collect()
}

/// Processes of the installation's programs and its pods' stage 1.
pub fn processes() -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let of_ours = processes.filter_map(|process| {
        let program = fs::read_link(process.path().join("exe")).ok()?;
        program.starts_with(installation()).then(|| {
            format!(
                "process {} {}",
                process.file_name().display(),
                program.display()
            )
        })
    });
    of_ours.collect()
}

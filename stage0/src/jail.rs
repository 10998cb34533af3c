//! What confines a running pod's process, read from the kernel's own account of it (proc(5)), not from what was asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::proc::{field, read};

/// The limits in force on a process.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Jail {
    /// Real, effective, saved and file system user id, in the host's numbers.
    pub uid: String,
    /// The same of the group.
    pub gid: String,
    /// Effective capabilities of the process, hexadecimal.
    pub capabilities: String,
    /// Whether exec can never give privileges again.
    pub no_new_privileges: bool,
    /// Threads by seccomp mode: `none`, `strict`, `filter`.
    pub seccomp_threads: BTreeMap<String, usize>,
    /// Mount points that the process sees.
    pub mounts: Vec<String>,
    /// Soft limits by name, of those that are not unlimited.
    pub limits: BTreeMap<String, String>,
    /// The pod's own cgroup on the host, if it has one.
    pub cgroup: Option<String>,
    /// What that caps, by the names of its files.
    pub cgroup_limits: BTreeMap<String, String>,
}

/// The files of a cgroup that cap it.
const CGROUP_LIMITS: [&str; 4] = ["memory.max", "pids.max", "cpu.max", "io.max"];

impl Jail {
    /// Reads the jail of a live process, that of the pod `uuid`.
    ///
    /// # Errors
    /// If the process has gone, or the kernel does not show it.
    pub fn of(pid: u32, uuid: &str) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = read(&process.join("status"))?;
        let mut jail = Self {
            uid: field(&status, "Uid"),
            gid: field(&status, "Gid"),
            capabilities: field(&status, "CapEff"),
            no_new_privileges: field(&status, "NoNewPrivs") == "1",
            mounts: read(&process.join("mountinfo"))?
                .lines()
                .filter_map(|line| line.split(' ').nth(4))
                .map(str::to_owned)
                .collect(),
            limits: limits(&read(&process.join("limits"))?),
            ..Self::default()
        };
        jail.cgroup = own_cgroup(pid, uuid)?;
        if let Some(cgroup) = &jail.cgroup {
            jail.cgroup_limits = cgroup_limits(cgroup);
        }
        for task in fs::read_dir(process.join("task")).context("list threads")? {
            // A thread may end while they are counted.
            if let Ok(status) = read(&task?.path().join("status")) {
                *jail
                    .seccomp_threads
                    .entry(seccomp_mode(&status))
                    .or_default() += 1;
            }
        }
        Ok(jail)
    }

    /// As `key=value` lines.
    pub fn lines(&self) -> Vec<String> {
        let threads: Vec<_> = self
            .seccomp_threads
            .iter()
            .map(|(mode, count)| format!("{mode}:{count}"))
            .collect();
        let limits: Vec<_> = self
            .limits
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        let caps: Vec<_> = self
            .cgroup_limits
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        let cgroup = self.cgroup.as_deref().unwrap_or("none");
        vec![
            format!("jail-uid={}", self.uid),
            format!("jail-gid={}", self.gid),
            format!("jail-capabilities={}", self.capabilities),
            format!("jail-no-new-privileges={}", self.no_new_privileges),
            format!("jail-seccomp-threads={}", threads.join(",")),
            format!("jail-mounts={}", self.mounts.join(",")),
            format!("jail-limits={}", limits.join(",")),
            format!("jail-cgroup={cgroup}"),
            format!("jail-cgroup-limits={}", caps.join(",")),
        ]
    }
}

/// The cgroup of the pod `uuid`'s own that process `pid` is in, if it is in one.
///
/// # Errors
/// If the process has gone.
pub fn own_cgroup(pid: u32, uuid: &str) -> Result<Option<String>> {
    let of_process = read(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
    let mut unified = of_process
        .lines()
        .filter_map(|line| line.strip_prefix("0::"));
    let own = unified.find(|path| Path::new(path).ends_with(uuid));
    Ok(own.map(str::to_owned))
}

/// What a cgroup caps; nothing of what the tree does not show.
pub fn cgroup_limits(cgroup: &str) -> BTreeMap<String, String> {
    let folder = format!("/sys/fs/cgroup{cgroup}");
    let limit = |file: &&str| {
        let text = fs::read_to_string(format!("{folder}/{file}")).ok()?;
        let text = text.trim();
        let is_limit = !text.is_empty() && text.split(' ').next() != Some("max");
        is_limit.then(|| ((*file).to_owned(), text.to_owned()))
    };
    CGROUP_LIMITS.iter().filter_map(limit).collect()
}

/// The signals that this process ignores, signal 1 in the lowest bit.
///
/// # Errors
/// If the kernel does not say.
pub fn ignored_signals() -> Result<u64> {
    let mask = field(&read(Path::new("/proc/self/status"))?, "SigIgn");
    u64::from_str_radix(&mask, 16).with_context(|| format!("read SigIgn {mask:?}"))
}

fn seccomp_mode(status: &str) -> String {
    match field(status, "Seccomp").as_str() {
        "0" => "none".to_owned(),
        "1" => "strict".to_owned(),
        "2" => "filter".to_owned(),
        other => other.to_owned(),
    }
}

/// Rows of `limits`: name in columns 0 to 25, then soft limit.
fn limits(table: &str) -> BTreeMap<String, String> {
    table
        .lines()
        .skip(1)
        .filter_map(|row| {
            let (name, values) = row.split_at_checked(26)?;
            let soft = values.split_whitespace().next()?;
            (soft != "unlimited").then(|| (name.trim().to_owned(), soft.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jail_of_this_process_is_read() -> Result<()> {
        let jail = Jail::of(std::process::id(), "no-uuid")?;
        assert_eq!(jail.uid.split(' ').count(), 4);
        assert_eq!(jail.capabilities.len(), 16);
        assert!(jail.mounts.iter().any(|mount| mount == "/proc"));
        assert!(jail.limits.contains_key("Max open files"));
        assert!(!jail.seccomp_threads.is_empty());
        Ok(())
    }
}

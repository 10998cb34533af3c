//! What a pod costs that does nothing: memory and wake-ups.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::counted::{Counts, by_reason};
use crate::subject::{Job, MEMORY_MIB, Subject};
use crate::trace::{EXIT, RETURN, Trace};

/// For what a start leaves to be done; then counting begins.
const SETTLING: Duration = Duration::from_secs(60);
/// Over which wake-ups are counted.
const WATCHED: Duration = Duration::from_secs(10);

/// Figures of an idle pod.
#[derive(Serialize, Deserialize)]
pub struct Idle {
    /// `guest` (its RAM), `rest` and `total`, KiB, shared pages counted in parts.
    pub pss_kib: Counts,
    /// The same of pages that nobody else maps.
    pub private_kib: Counts,
    /// Voluntary context switches in 10 s by thread, those with none left out.
    pub wakeups: Counts,
    /// Exits to the host's kernel in 10 s.
    pub exits_by_reason: Counts,
    /// Returns to the VMM in 10 s.
    pub kvm_run_returns: Counts,
}

/// Starts an idle pod, watches it and kills it.
pub fn measure(subject: Subject) -> Result<Idle> {
    let mut child = subject
        .command(Job::Idle)?
        .spawn()
        .context("start the VMM")?;
    let vmm = find(subject)?;
    thread::sleep(SETTLING);
    let before = switches(vmm)?;
    let trace = Trace::start(&[EXIT, RETURN])?;
    thread::sleep(WATCHED);
    let events = trace.stop()?;
    let mut wakeups = switches(vmm)?;
    for (thread, count) in &mut wakeups {
        *count -= before.get(thread).unwrap_or(&0);
    }
    wakeups.retain(|_, count| *count > 0);
    let smaps = fs::read_to_string(format!("/proc/{vmm}/smaps")).context("read smaps")?;
    kill(Pid::from_raw(vmm), Signal::SIGKILL).context("end the VMM")?;
    child.wait()?;
    ensure!(!smaps.is_empty(), "{subject:?}: it has ended");
    Ok(Idle {
        pss_kib: sums(&smaps, &["Pss"]),
        private_kib: sums(
            &smaps,
            &["Private_Clean", "Private_Dirty", "Private_Hugetlb"],
        ),
        wakeups,
        exits_by_reason: by_reason(&events, "kvm_exit"),
        kvm_run_returns: by_reason(&events, "kvm_userspace_exit"),
    })
}

/// The process that is the VMM, once it has a thread for a vCPU.
fn find(subject: Subject) -> Result<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            if program.ends_with(subject.vmm().as_bytes()) && threads(pid).count() > 1 {
                return Ok(pid);
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("{subject:?}: no process of it was found")
}

fn threads(pid: i32) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    entries.flatten().map(|entry| entry.path())
}

/// Voluntary context switches so far, by `NAME-TID`.
fn switches(pid: i32) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for thread in threads(pid) {
        let status = fs::read_to_string(thread.join("status")).context("read a thread's status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
                .with_context(|| format!("no {name} in a thread's status"))
        };
        let name = format!("{}-{}", field("Name:")?, field("Pid:")?);
        counts.insert(name, field("voluntary_ctxt_switches:")?.parse()?);
    }
    Ok(counts)
}

/// Sums `fields` of smaps, KiB: a mapping as large as the RAM is the guest's.
fn sums(smaps: &str, fields: &[&str]) -> Counts {
    let mut counts = Counts::from([("guest".to_owned(), 0), ("rest".to_owned(), 0)]);
    let mut part = "rest";
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        let (Some(name), Ok(kib)) = (name.strip_suffix(':'), value.parse::<u64>()) else {
            continue;
        };
        if name == "Size" {
            part = if kib >= MEMORY_MIB << 10 {
                "guest"
            } else {
                "rest"
            };
        } else if fields.contains(&name) {
            *counts.entry(part.to_owned()).or_default() += kib;
        }
    }
    counts.insert("total".to_owned(), counts.values().sum());
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_guest_memory_from_the_rest() {
        let smaps = "7f00-7f01 rw-p 0 00:00 0\nSize: 524288 kB\nPss: 700 kB\nPrivate_Dirty: 600 kB\n\
                     7f02-7f03 rw-p 0 00:00 0 [heap]\nSize: 132 kB\nPss: 20 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n";
        let pss = sums(smaps, &["Pss"]);
        assert_eq!((pss["guest"], pss["rest"], pss["total"]), (700, 20, 720));
        assert_eq!(sums(smaps, &["Private_Clean", "Private_Dirty"])["rest"], 12);
    }
}

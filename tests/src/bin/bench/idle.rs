//! What a pod costs that does nothing: memory and wake-ups.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
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
        pss_kib: sums(&smaps, &["Pss"])?,
        private_kib: sums(
            &smaps,
            &["Private_Clean", "Private_Dirty", "Private_Hugetlb"],
        )?,
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

/// A mapping of a process, as smaps shows it.
struct Mapping {
    start: u64,
    end: u64,
    /// Figures in KiB by name.
    kib: BTreeMap<String, u64>,
}

fn mappings(smaps: &str) -> Result<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().context("an empty line in smaps")?;
        if let Some(name) = first.strip_suffix(':') {
            let value = words.next().and_then(|value| value.parse().ok());
            if let (Some(kib), Some(mapping)) = (value, mappings.last_mut()) {
                mapping.kib.insert(name.to_owned(), kib);
            }
        } else {
            let (start, end) = first
                .split_once('-')
                .context("read a mapping's addresses")?;
            mappings.push(Mapping {
                start: u64::from_str_radix(start, 16)?,
                end: u64::from_str_radix(end, 16)?,
                kib: BTreeMap::new(),
            });
        }
    }
    Ok(mappings)
}

/// Which mappings are the guest's: those that lie without a gap and are together as large as its RAM.
fn guests(mappings: &[Mapping]) -> Result<Range<usize>> {
    for (first, begin) in mappings.iter().enumerate() {
        let mut end = begin.start;
        for (index, mapping) in mappings.iter().enumerate().skip(first) {
            if mapping.start != end {
                break;
            }
            end = mapping.end;
            if end - begin.start == MEMORY_MIB << 20 {
                return Ok(first..index + 1);
            }
        }
    }
    bail!("no mappings as large as the guest's RAM")
}

/// Sums `fields` of smaps, KiB.
fn sums(smaps: &str, fields: &[&str]) -> Result<Counts> {
    let mappings = mappings(smaps)?;
    let guests = guests(&mappings)?;
    let mut counts = Counts::from([("guest".to_owned(), 0), ("rest".to_owned(), 0)]);
    for (index, mapping) in mappings.iter().enumerate() {
        let part = match guests.contains(&index) {
            true => "guest",
            false => "rest",
        };
        let kib = fields.iter().filter_map(|field| mapping.kib.get(*field));
        *counts.entry(part.to_owned()).or_default() += kib.sum::<u64>();
    }
    counts.insert("total".to_owned(), counts.values().sum());
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_guest_memory_in_pieces_from_the_rest() {
        // 512 MiB from 0x10000000 on, in two pieces, between two neighbours.
        let smaps = "0ffff000-10000000 rw-p 0 00:00 0 [heap]\nSize: 4 kB\nPss: 9 kB\nVmFlags: rd wr\n\
                     10000000-11000000 rw-p 0 00:00 0\nSize: 16384 kB\nPss: 700 kB\nPrivate_Dirty: 600 kB\n\
                     11000000-30000000 rw-p 0 00:00 5 /vmlinux\nPss: 10 kB\nPrivate_Dirty: 1 kB\n\
                     30000000-30010000 rw-p 0 00:00 0\nPss: 20 kB\nPrivate_Clean: 4 kB\nPrivate_Dirty: 8 kB\n";
        let pss = sums(smaps, &["Pss"]).unwrap();
        assert_eq!((pss["guest"], pss["rest"], pss["total"]), (710, 29, 739));
        let private = sums(smaps, &["Private_Clean", "Private_Dirty"]).unwrap();
        assert_eq!((private["guest"], private["rest"]), (601, 12));
        assert!(sums("1000-2000 rw-p 0 00:00 0\nPss: 4 kB\n", &["Pss"]).is_err());
    }
}

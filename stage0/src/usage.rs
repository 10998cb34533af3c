//! What a pod takes of the host, read from the kernel's account of its process (proc(5)): a pod is one process, with its
//! guest's CPUs and memory in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::proc::{field, read};

/// Of a live process.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of all its threads, the guest's time included; as JSON nanoseconds.
    #[serde(serialize_with = "as_nanoseconds")]
    pub cpu_time: Duration,
    /// Resident now, bytes.
    pub memory: u64,
    /// The most that ever was, bytes.
    pub memory_peak: u64,
    /// Threads.
    pub threads: u64,
    /// Taken from disks, bytes; none if this user may not know.
    pub read: Option<u64>,
    /// Given to disks, bytes; none if this user may not know.
    pub written: Option<u64>,
}

/// What /proc counts CPU time in, wherever this runs.
const TICKS_PER_SECOND: u64 = 100;

impl Usage {
    /// Reads what the process `pid` takes.
    ///
    /// # Errors
    /// If it has gone.
    pub fn of(pid: u32) -> Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let status = read(&process.join("status"))?;
        let io = read(&process.join("io")).ok();
        let io = |name| io.as_ref().and_then(|text| field(text, name).parse().ok());
        let stat = read(&process.join("stat"))?;
        let ticks = ticks(&stat).with_context(|| format!("read {stat:?}"))?;
        Ok(Self {
            cpu_time: Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND)),
            memory: kibibytes(&status, "VmRSS"),
            memory_peak: kibibytes(&status, "VmHWM"),
            threads: field(&status, "Threads").parse().unwrap_or(0),
            read: io("read_bytes"),
            written: io("write_bytes"),
        })
    }
}

/// User and system time: fields 14 and 15 of the line, of which the second, the name in brackets, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name
        .split_whitespace()
        .skip(11)
        .map(str::parse::<u64>);
    let mut time = || -> Option<u64> { times.next()?.ok() };
    Some(time()? + time()?)
}

/// A size in KiB, in bytes; nothing of a process that is just ending.
fn kibibytes(status: &str, name: &str) -> u64 {
    let value = field(status, name);
    let number = value
        .strip_suffix(" kB")
        .and_then(|number| number.parse().ok());
    number.map_or(0, |kibibytes: u64| kibibytes * 1024)
}

fn as_nanoseconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u128(time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory > 0 && usage.memory_peak >= usage.memory && usage.threads > 0);
        assert!(usage.read.is_some() && usage.written.is_some());
    }

    #[test]
    fn name_of_a_process_may_look_like_the_fields_after_it() {
        let stat = "7 (a) S 1 (b)) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (sh) R 1 2"), None);
    }
}

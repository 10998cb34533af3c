//! The pod's processes, as /proc of an app shows them, for whoever asked to make sense of. Called by `built_in`.

use std::fs::{self, File};
use std::io::Read;

use anyhow::{Context, Result};
use serde::Serialize;

/// The most that is told of any one file of a process, bytes.
const FILE_BYTES: u64 = 4096;

/// The most processes that are told of.
const MOST: usize = 10_000;

/// What /proc says at one moment (proc(5)).
#[derive(Debug, Serialize)]
pub struct Processes {
    uptime: String,
    /// All but the pod's reaper and this one, by their numbers in the pod's PID namespace.
    processes: Vec<Process>,
}

/// The files of one process.
#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
    stat: String,
    status: String,
    cgroup: String,
    cmdline: String,
}

/// All processes of the pod.
pub fn all() -> Result<Processes> {
    let folders = fs::read_dir("/proc").context("read /proc")?;
    let numbers = folders.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = numbers
        .filter(|pid| ![1, std::process::id()].contains(pid))
        .collect();
    pids.sort_unstable();
    Ok(Processes {
        uptime: read("/proc/uptime").context("read /proc/uptime")?,
        // One that has ended meanwhile is none.
        processes: pids.into_iter().filter_map(process).take(MOST).collect(),
    })
}

fn process(pid: u32) -> Option<Process> {
    let file = |name: &str| read(&format!("/proc/{pid}/{name}"));
    Some(Process {
        pid,
        stat: file("stat")?,
        status: file("status")?,
        cgroup: file("cgroup")?,
        cmdline: file("cmdline")?,
    })
}

fn read(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_that_lives_is_told_of_and_one_that_does_not_is_none() {
        let own = process(std::process::id()).expect("this process");
        assert!(own.stat.starts_with(&format!("{} (", own.pid)), "{own:?}");
        assert!(own.status.contains("\nUid:") && own.cmdline.contains("guest"));
        assert!(process(u32::MAX).is_none());
    }
}

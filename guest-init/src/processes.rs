//! The pod's processes, as /proc of an app shows them. Called by `built_in`; what is read there is the apps' to choose.

use std::fs::{self, File};
use std::io::Read;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// The longest command line that is told, bytes.
const COMMAND_BYTES: u64 = 1024;

/// The most processes that are told of.
const MOST: usize = 10_000;

/// One process.
#[derive(Debug, Serialize)]
pub struct Process {
    /// In the pod's PID namespace, as the next one.
    pid: u32,
    parent: u32,
    /// User id, effective.
    user: u32,
    /// Whether it is of the app in which it was asked.
    own: bool,
    /// The kernel's letter: R, S, D, Z…
    state: char,
    cpu_ms: u64,
    memory_bytes: u64,
    age_ms: u64,
    /// Name and arguments, or, of one without, its name in brackets.
    command: String,
}

/// All but the pod's reaper and this one, by their numbers.
pub fn all() -> Result<Vec<Process>> {
    let uptime = fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    let seconds: f64 = uptime.split(' ').next().unwrap_or_default().parse()?;
    let pids = fs::read_dir("/proc")
        .context("read /proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = pids
        .filter(|pid| ![1, std::process::id()].contains(pid))
        .collect();
    pids.sort_unstable();
    // One that has ended meanwhile is none.
    let processes = pids.into_iter().filter_map(|pid| process(pid, seconds));
    Ok(processes.take(MOST).collect())
}

fn process(pid: u32, uptime: f64) -> Option<Process> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let stat = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let Stat {
        name,
        state,
        parent,
        ticks,
        started,
        pages,
    } = Stat::parse(&stat)?;
    let status = read("status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // The root of what it sees of cgroups is the app's own.
    let own = read("cgroup")?
        .trim_end()
        .strip_prefix("0::/")
        .is_some_and(|path| !path.starts_with(".."));
    let per_second = number(sysconf(SysconfVar::CLK_TCK).ok()?)?;
    let page_bytes = number(sysconf(SysconfVar::PAGE_SIZE).ok()?)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an uptime is positive and no million years"
    )]
    let uptime_ms = (uptime * 1000.0) as u64;
    let ms = |ticks: u64| ticks.saturating_mul(1000) / per_second.max(1);
    Some(Process {
        pid,
        parent,
        user: ids.split_whitespace().nth(1)?.parse().ok()?,
        own,
        state,
        cpu_ms: ms(ticks),
        memory_bytes: pages.saturating_mul(page_bytes),
        age_ms: uptime_ms.saturating_sub(ms(started)),
        command: command(pid).unwrap_or_else(|| format!("[{name}]")),
    })
}

fn number(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok())
}

/// What of /proc/PID/stat counts here (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    parent: u32,
    /// User and system time.
    ticks: u64,
    started: u64,
    pages: u64,
}

impl Stat {
    /// The name is the process's to choose: it may hold brackets, spaces and numbers.
    fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            ticks: number(11)?.saturating_add(number(12)?),
            started: number(19)?,
            pages: number(21)?,
        })
    }
}

fn command(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    file.take(COMMAND_BYTES).read_to_end(&mut bytes).ok()?;
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    (!words.is_empty()).then(|| String::from_utf8_lossy(words).replace('\0', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_that_calls_itself_by_brackets_and_numbers_is_read() {
        let text = "7 (a) R 1 (b) S 3 7 7 0 -1 4194560 100 0 0 0 5 2 0 0 20 0 1 0 321 5000 40 0";
        let parsed = Stat::parse(text).expect("a stat");
        let expected = Stat {
            name: "a) R 1 (b".into(),
            state: 'S',
            parent: 3,
            ticks: 7,
            started: 321,
            pages: 40,
        };
        assert_eq!(parsed, expected);
        assert_eq!(Stat::parse("7 (a) R 1"), None);
    }

    #[test]
    fn process_of_its_own_is_described() {
        let own = process(std::process::id(), 1e9).expect("this process");
        assert!(own.memory_bytes > 1 << 16 && own.age_ms > 0, "{own:?}");
        assert!(own.command.contains("guest"), "{own:?}");
    }
}

//! Processes of a pod, from what its machine says that the files of /proc say there (proc(5)). All of it is a stranger's.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::proc::field;

/// Ticks of a second in /proc on x86-64, whatever the kernel's own are.
const TICKS: u64 = 100;

/// What the machine says.
#[derive(Debug, Deserialize)]
pub struct Said {
    uptime: String,
    processes: Vec<Files>,
}

#[derive(Debug, Deserialize)]
struct Files {
    pid: u32,
    stat: String,
    status: String,
    cgroup: String,
    cmdline: String,
}

/// A process.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// In the pod's PID namespace, as the next one.
    pub pid: u32,
    /// Its parent; 0 = none that the pod sees.
    pub parent: u32,
    /// User id, effective.
    pub user: u32,
    /// The kernel's letter: R, S, D, Z…
    pub state: char,
    /// Time on CPUs.
    pub cpu_ms: u64,
    /// Resident.
    pub memory_bytes: u64,
    /// Since it was born.
    pub age_ms: u64,
    /// Name and arguments, or, of one without, its name in brackets.
    pub command: String,
    /// Whether it is of the app in which it was asked.
    #[serde(skip)]
    pub own: bool,
}

impl Said {
    /// The processes, in order.
    ///
    /// # Errors
    /// If what is said of one makes no sense.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let uptime = self.uptime.split_whitespace().next().and_then(hundredths);
        let uptime = uptime.context("the machine does not say how long it is up")?;
        let processes = self.processes.iter().map(|files| {
            let process = files.process(uptime);
            process.with_context(|| format!("what is said of process {} makes no sense", files.pid))
        });
        processes.collect()
    }
}

impl Files {
    fn process(&self, uptime: u64) -> Option<Process> {
        // A process chooses its name: it may hold brackets, spaces and numbers.
        let (before, after) = self.stat.rsplit_once(')')?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let resident = field(&self.status, "VmRSS");
        let resident_kib = resident.split(' ').next()?;
        let ms = |ticks: u64| ticks.saturating_mul(1000 / TICKS);
        let words = self.cmdline.trim_end_matches('\0').replace('\0', " ");
        Some(Process {
            pid: self.pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            user: field(&self.status, "Uid").split(' ').nth(1)?.parse().ok()?,
            cpu_ms: ms(number(11)?.saturating_add(number(12)?)),
            // A kernel thread, or one that has ended, has none.
            memory_bytes: resident_kib.parse().unwrap_or(0u64).saturating_mul(1024),
            age_ms: ms(uptime.saturating_sub(number(19)?)),
            command: match words.is_empty() {
                true => format!("[{}]", before.split_once('(')?.1),
                false => words,
            },
            // The root of what it sees of cgroups is the app's own.
            own: self.cgroup.starts_with("0::/") && !self.cgroup.starts_with("0::/.."),
        })
    }
}

/// A decimal number with two digits after its point, as hundredths.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(100)?
        .checked_add(rest.get(..2)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(stat: &str, cmdline: &str) -> Result<Vec<Process>> {
        let said = Said {
            uptime: "12.34 1.00\n".to_owned(),
            processes: vec![Files {
                pid: 7,
                stat: stat.to_owned(),
                status: "Name:\tx\nUid:\t0\t5\t0\t0\nVmRSS:\t    40 kB\n".to_owned(),
                cgroup: "0::/../other\n".to_owned(),
                cmdline: cmdline.to_owned(),
            }],
        };
        said.processes()
    }

    const STAT: &str =
        "7 (a) R 1 (b) S 3 7 7 0 -1 4194560 100 0 0 0 5 2 0 0 20 0 1 0 234 5000 40 0";

    #[test]
    fn process_that_calls_itself_by_brackets_and_numbers_is_understood() -> Result<()> {
        let expected = Process {
            pid: 7,
            parent: 3,
            user: 5,
            state: 'S',
            cpu_ms: 70,
            memory_bytes: 40 << 10,
            age_ms: 10_000,
            command: "[a) R 1 (b]".to_owned(),
            own: false,
        };
        assert_eq!(said(STAT, "")?, [expected]);
        assert_eq!(said(STAT, "sh\0-c\0x\0")?[0].command, "sh -c x");
        Ok(())
    }

    #[test]
    fn process_of_which_nonsense_is_said_is_an_error() {
        let most = u64::MAX.to_string();
        for stat in ["", "7 (a) R 1", "7 a R", &STAT.replace("234", "x")] {
            assert!(said(stat, "").is_err(), "{stat}");
        }
        assert!(said(&STAT.replace("5 2", &format!("{most} {most}")), "").is_ok());
    }
}

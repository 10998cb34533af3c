//! What is measured by a clock that counts instructions: the phases of a start, exits, and an idle pod.
//!
//! Events cost instructions, too. So each is started several times: unmeasured, to find its files in memory after; to its
//! first entry into the guest, which is the first of many events, five times; with the few events that mark the later phases; and
//! with every exit.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Child;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::chamber;
use crate::idle::{self, Idle};
use crate::subject::{Job, MARK_EXEC, MARK_FIRST_BYTE, MARK_INIT, MARK_PORT, Subject};
use crate::trace::{ENTRY, EXEC, EXIT, Event, PORT, RETURN, Trace};

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Between two ticks of the host's kernel (CONFIG_HZ=250), ns.
const TICK_NS: u64 = 4_000_000;

/// Starts whose set-ups are measured.
const SETUP_STARTS: u64 = 5;

/// Counts by name.
pub type Counts = BTreeMap<String, u64>;

/// Everything counted.
#[derive(Serialize, Deserialize)]
pub struct Counted {
    /// By setting of transparent huge pages, then by subject.
    pub phase_instructions: BTreeMap<String, BTreeMap<Subject, Counts>>,
    /// Exits to the host's kernel, of a whole start and end.
    pub exits_by_reason: BTreeMap<Subject, Counts>,
    /// Returns to the VMM, likewise.
    pub kvm_run_returns: BTreeMap<Subject, Counts>,
    /// An idle pod.
    pub idle: BTreeMap<Subject, Idle>,
}

/// Measures everything; the process ends in a chroot.
pub fn measure(images: &str) -> Result<Counted> {
    Trace::prepare()?;
    chamber::enter(images)?;
    let mut counted = Counted {
        phase_instructions: BTreeMap::new(),
        exits_by_reason: BTreeMap::new(),
        kvm_run_returns: BTreeMap::new(),
        idle: BTreeMap::new(),
    };
    for setting in ["never", "always"] {
        fs::write(HUGE_PAGES, setting).context("set transparent huge pages")?;
        let phases = counted
            .phase_instructions
            .entry(setting.to_owned())
            .or_default();
        for subject in Subject::ALL {
            start(subject, &[])?;
            let setup_ns = mean_setup_ns(subject)?;
            let seen = start(subject, &[EXEC, PORT])?;
            phases.insert(subject, seen.phases(subject, setup_ns)?);
        }
    }
    for subject in Subject::ALL {
        let seen = start(subject, &[EXIT, RETURN])?;
        counted
            .exits_by_reason
            .insert(subject, by_reason(&seen.events, "kvm_exit"));
        counted
            .kvm_run_returns
            .insert(subject, by_reason(&seen.events, "kvm_userspace_exit"));
        counted.idle.insert(subject, idle::measure(subject)?);
    }
    Ok(counted)
}

/// What set-up takes in the mean: whoever waits for the host's kernel often waits for one of its ticks, so starts are spread
/// evenly over one.
fn mean_setup_ns(subject: Subject) -> Result<u64> {
    let mut sum = 0;
    for part in 0..SETUP_STARTS {
        let now = now_ns()?;
        let at = now.next_multiple_of(TICK_NS) + part * TICK_NS / SETUP_STARTS;
        thread::sleep(Duration::from_nanos(at - now));
        sum += start(subject, &[EXEC, ENTRY])?.setup_ns(subject)?;
    }
    Ok(sum / SETUP_STARTS)
}

/// What one start, to its end, showed. Times are CLOCK_MONOTONIC, ns.
struct Seen {
    events: Vec<Event>,
    stderr: String,
    first_byte_ns: u64,
    ended_ns: u64,
}

fn start(subject: Subject, events: &[&str]) -> Result<Seen> {
    let trace = Trace::start(events)?;
    let mut child = subject
        .command(Job::Echo)?
        .spawn()
        .context("start the VMM")?;
    let (out, first_byte_ns) = read_out(&mut child)?;
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .context("stderr")?
        .read_to_string(&mut stderr)?;
    let status = child.wait()?;
    let ended_ns = now_ns()?;
    let text = if subject == Subject::Fairing {
        "hello\n"
    } else {
        ""
    };
    ensure!(
        status.code() == Some(subject.good_code()) && out == text,
        "{subject:?}: {status}, {out:?}: {stderr}"
    );
    Ok(Seen {
        events: trace.stop()?,
        stderr,
        first_byte_ns,
        ended_ns,
    })
}

/// All of stdout, and when its first byte came.
fn read_out(child: &mut Child) -> Result<(String, u64)> {
    let mut stdout = child.stdout.take().context("stdout")?;
    let mut bytes = vec![0; 1];
    let read = stdout.read(&mut bytes)?;
    let at = now_ns()?;
    bytes.truncate(read);
    stdout.read_to_end(&mut bytes)?;
    Ok((String::from_utf8(bytes)?, at))
}

impl Seen {
    /// From the VMM's exec to its first entry into the guest, ns.
    fn setup_ns(&self, subject: Subject) -> Result<u64> {
        let length = self
            .time("kvm_entry", "")?
            .checked_sub(self.exec(subject.vmm())?);
        length.context("the guest was entered before the VMM was started")
    }

    /// The phases in their order, each from the end of the one before; all but `end` are free of idle time but for what
    /// a phase itself waits.
    fn phases(&self, subject: Subject, setup_ns: u64) -> Result<Counts> {
        let entrypoint = self.exec(subject.vmm())?;
        let entry = entrypoint + setup_ns;
        let marks = match subject {
            Subject::Fairing => [
                ("stage0", self.exec("/usr/bin/fairing")?),
                ("vmm_setup", entrypoint),
                ("kernel", entry),
                ("init", self.told("init")?),
                ("first_byte", self.told("exec")?),
                ("end", self.first_byte_ns),
                ("removal", self.told("ended")?),
            ]
            .to_vec(),
            Subject::Qemu => [
                ("vmm_setup", entrypoint),
                ("kernel", entry),
                ("init", self.marked(MARK_INIT)?),
                ("first_byte", self.marked(MARK_EXEC)?),
                ("end", self.marked(MARK_FIRST_BYTE)?),
            ]
            .to_vec(),
        };
        let ends = marks
            .iter()
            .skip(1)
            .map(|mark| mark.1)
            .chain([self.ended_ns]);
        let mut phases = Counts::new();
        for ((name, from), to) in marks.iter().zip(ends) {
            let length = to
                .checked_sub(*from)
                .with_context(|| format!("{name} ends before it begins"))?;
            phases.insert((*name).to_owned(), length);
        }
        Ok(phases)
    }

    fn time(&self, name: &str, part: &str) -> Result<u64> {
        let event = self
            .events
            .iter()
            .find(|event| event.name == name && event.detail.contains(part));
        Ok(event
            .with_context(|| format!("no {name} {part:?} in the trace"))?
            .at_ns)
    }

    fn exec(&self, path_end: &str) -> Result<u64> {
        self.time("sched_process_exec", &format!("{path_end} pid="))
    }

    fn marked(&self, mark: u8) -> Result<u64> {
        self.time(
            "kvm_pio",
            &format!("at {MARK_PORT:#x} size 1 count 1 val {mark:#x}"),
        )
    }

    /// What `--timings` says of `name`.
    fn told(&self, name: &str) -> Result<u64> {
        let prefix = format!("fairing-timing {name} ");
        let line = self
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix(&prefix));
        line.with_context(|| format!("no time of {name} in {:?}", self.stderr))?
            .parse()
            .context("read a time")
    }
}

/// How often each reason occurs in the events called `name`.
pub fn by_reason(events: &[Event], name: &str) -> Counts {
    let mut counts = Counts::new();
    for event in events.iter().filter(|event| event.name == name) {
        let reason = event
            .detail
            .split("reason ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        *counts
            .entry(reason.unwrap_or("unknown").to_owned())
            .or_default() += 1;
    }
    counts
}

/// CLOCK_MONOTONIC, ns.
pub fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

//! The host kernel's own tracepoints: the same witness for every VMM. Linux, Documentation/trace/ftrace.rst.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

const FOLDER: &str = "/sys/kernel/tracing";
/// Room for the events of one start, KiB.
const BUFFER_KIB: &str = "16384";

/// Every program execution.
pub const EXEC: &str = "sched/sched_process_exec";
/// Every entry into a guest.
pub const ENTRY: &str = "kvm/kvm_entry";
/// Every exit of a guest to the host's kernel, with its reason.
pub const EXIT: &str = "kvm/kvm_exit";
/// Every return of KVM_RUN to the VMM, with its reason.
pub const RETURN: &str = "kvm/kvm_userspace_exit";
/// Every access of a guest to an I/O port.
pub const PORT: &str = "kvm/kvm_pio";

/// One line of the trace.
#[derive(Debug)]
pub struct Event {
    /// CLOCK_MONOTONIC, ns, known to the microsecond.
    pub at_ns: u64,
    /// The tracepoint without its group.
    pub name: String,
    /// What the tracepoint prints.
    pub detail: String,
}

/// Tracing that is on.
pub struct Trace;

impl Trace {
    /// Makes tracing reachable, its clock CLOCK_MONOTONIC and its buffer large enough.
    pub fn prepare() -> Result<()> {
        if !Path::new(FOLDER).join("trace").exists() {
            mount(
                Some("tracefs"),
                FOLDER,
                Some("tracefs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .context("mount tracefs")?;
        }
        set("trace_clock", "mono")?;
        set("buffer_size_kb", BUFFER_KIB)
    }

    /// Traces `events` from now on.
    pub fn start(events: &[&str]) -> Result<Self> {
        set("events/enable", "0")?;
        set("trace", "")?;
        for event in events {
            set(&format!("events/{event}/enable"), "1")?;
        }
        Ok(Self)
    }

    /// Stops and returns what was seen.
    pub fn stop(self) -> Result<Vec<Event>> {
        set("events/enable", "0")?;
        let text = fs::read_to_string(Path::new(FOLDER).join("trace")).context("read the trace")?;
        let counts = text
            .split_once("entries-in-buffer/entries-written: ")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .and_then(|counts| counts.split_once('/'))
            .context("find the trace's counts")?;
        ensure!(
            counts.0 == counts.1,
            "the trace's buffer was too small: {counts:?}"
        );
        Ok(text.lines().filter_map(parse).collect())
    }
}

/// `COMM-PID [CPU] FLAGS SECONDS.MICROSECONDS: NAME: DETAIL`
fn parse(line: &str) -> Option<Event> {
    let (_, rest) = line.split_once(" [")?;
    let (stamp, rest) = rest.split_once(": ")?;
    let (name, detail) = rest.split_once(": ")?;
    let (seconds, micros) = stamp.split_whitespace().next_back()?.split_once('.')?;
    let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
    Some(Event {
        at_ns: (seconds * 1_000_000 + micros) * 1000,
        name: name.to_owned(),
        detail: detail.to_owned(),
    })
}

fn set(file: &str, value: &str) -> Result<()> {
    fs::write(Path::new(FOLDER).join(file), value)
        .with_context(|| format!("write {value:?} to the trace's {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_exit_line_gives_time_name_and_detail() {
        let event = parse(
            "  vcpu 0-308     [000] d..1. 60352.694304: kvm_exit: vcpu 0 reason npf rip 0x1000123",
        )
        .unwrap();
        assert_eq!(event.at_ns, 60_352_694_304_000);
        assert_eq!(event.name, "kvm_exit");
        assert_eq!(event.detail, "vcpu 0 reason npf rip 0x1000123");
    }

    #[test]
    fn parse_comment_line_is_none() {
        assert!(parse("#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION").is_none());
    }
}

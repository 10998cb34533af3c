//! What the files of a cgroup (version 2) say of limits. Written by PID 1 for apps, and by stage 1 for the pod's process.

use std::fs;
use std::path::Path;

use crate::protocol::Limits;

/// Over which CPU time is counted, microseconds; a thousandth of a CPU is a tenth of a millisecond of it.
const PERIOD_US: u32 = 100_000;

/// The files that hold `limits`, and what each says, in the order of their controllers; the rates are those of each of `disks`,
/// which are called `MAJOR:MINOR`.
pub fn cgroup_files(limits: &Limits, disks: &[String]) -> Vec<(&'static str, String)> {
    let number = |limit: Option<u64>| limit.map(|limit| limit.to_string());
    let files = [
        ("memory.max", number(limits.memory_bytes)),
        ("pids.max", number(limits.processes.map(u64::from))),
        ("cpu.max", limits.cpu_milli.map(cpu_max)),
        ("cpu.weight", number(limits.cpu_weight.map(u64::from))),
    ];
    let rates = io_max(limits);
    let of_disks = disks
        .iter()
        .filter_map(|disk| Some(("io.max", Some(format!("{disk} {}", rates.as_ref()?)))));
    let given = files.into_iter().chain(of_disks);
    given
        .filter_map(|(file, value)| Some((file, value?)))
        .collect()
}

/// How many processes the kernel has killed in a cgroup because its memory was used up; none in one that is not there.
pub fn oom_kills(cgroup: &Path) -> u64 {
    let events = fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
    let mut lines = events.lines();
    let kills = lines.find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(0)
}

/// What io.max says of a disk; `None` = nothing.
fn io_max(limits: &Limits) -> Option<String> {
    let Limits {
        disk_bytes,
        disk_operations,
        ..
    } = limits;
    let bytes = disk_bytes.map(|bytes| format!("rbps={bytes} wbps={bytes}"));
    let operations = disk_operations.map(|count| format!("riops={count} wiops={count}"));
    let parts: Vec<_> = bytes.into_iter().chain(operations).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// What cpu.max says of a limit in thousandths of a CPU.
fn cpu_max(milli: u32) -> String {
    let quota = u64::from(milli) * u64::from(PERIOD_US / 1000);
    format!("{quota} {PERIOD_US}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_max_names_what_is_limited() {
        let mut limits = Limits::default();
        assert_eq!(io_max(&limits), None);
        limits.disk_operations = Some(5);
        assert_eq!(io_max(&limits).as_deref(), Some("riops=5 wiops=5"));
        limits.disk_bytes = Some(1 << 20);
        let both = "rbps=1048576 wbps=1048576 riops=5 wiops=5";
        assert_eq!(io_max(&limits).as_deref(), Some(both));
    }

    #[test]
    fn cpu_max_is_the_share_of_a_period() {
        assert_eq!(cpu_max(1500), "150000 100000");
        assert_eq!(cpu_max(10), "1000 100000");
    }
}

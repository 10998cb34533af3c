//! `fairing stats`: what running pods take of the host.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Context;
use super::chosen;
use crate::jail;
use crate::pods::{Folder, Pod, State};
use crate::table::{self, TableFlags};
use crate::usage::Usage;

/// Tells what running pods have taken of the host so far: CPU time, memory, disk
#[derive(Debug, Args)]
#[command(
    after_help = "MEMORY and PEAK are what of the pod's process is resident; LIMIT is its cgroup's, which counts the \
    host's cache of its files, too. To look again and again: watch fairing stats"
)]
pub struct Stats {
    /// Pods; a unique beginning of each is enough [default: all that run]
    #[arg(value_name = "UUID")]
    pub uuids: Vec<String>,
    /// Whole UUIDs and exact figures
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub table: TableFlags,
    /// Accepted for podman's sake: the figures are always printed once
    #[arg(long, hide = true)]
    pub no_stream: bool,
}

/// One pod.
#[derive(Serialize)]
struct Row {
    /// UUID.
    name: String,
    #[serde(flatten)]
    usage: Usage,
    /// What its cgroup on the host allows, bytes.
    memory_limit: Option<u64>,
}

impl Stats {
    /// Prints the figures; of a pod that is named and does not run, tells that.
    ///
    /// # Errors
    /// If the pods cannot be read, or stdout is closed.
    pub fn run(self, context: &Context) -> Result<i32> {
        let (rows, code): (Vec<_>, _) = if self.uuids.is_empty() {
            let mut pods = context.pods.in_folder(Folder::Run)?;
            pods.sort_by_key(|pod| (pod.created(), pod.uuid().to_owned()));
            (pods.iter().filter_map(row_of_running).collect(), 0)
        } else {
            chosen::map(&self.uuids, context, |pod| row(&pod))
        };
        let titles = [
            "UUID", "CPU TIME", "MEMORY", "LIMIT", "PEAK", "THREADS", "READ", "WRITTEN",
        ];
        let cells = rows.iter().map(|row| self.cells(row));
        self.table.print(&rows, titles.map(str::to_owned), cells)?;
        Ok(code)
    }

    fn cells(&self, row: &Row) -> [String; 8] {
        let bytes = |bytes: Option<u64>| match bytes {
            Some(bytes) if self.full => bytes.to_string(),
            Some(bytes) => table::bytes(bytes),
            None => "-".to_owned(),
        };
        let usage = &row.usage;
        let name = match self.full {
            true => &row.name,
            false => &row.name[..8],
        };
        [
            name.to_owned(),
            format!("{:.2}s", usage.cpu_time.as_secs_f64()),
            bytes(Some(usage.memory)),
            bytes(row.memory_limit),
            bytes(Some(usage.memory_peak)),
            usage.threads.to_string(),
            bytes(usage.read),
            bytes(usage.written),
        ]
    }
}

/// The figures of a pod that runs, and still does when they have been taken; what hides them from one that does is told.
fn row_of_running(pod: &Pod) -> Option<Row> {
    let runs = || pod.state().is_ok_and(|state| state == State::Running);
    if !runs() {
        return None;
    }
    row(pod)
        .inspect_err(|error| {
            if runs() {
                crate::warn(error);
            }
        })
        .ok()
}

/// The figures of a pod, which must run.
fn row(pod: &Pod) -> Result<Row> {
    let pid = pod.running_pid()?;
    let limit = |cgroup: &str| jail::cgroup_limits(cgroup).get("memory.max")?.parse().ok();
    Ok(Row {
        name: pod.uuid().to_owned(),
        usage: Usage::of(pid)?,
        memory_limit: jail::own_cgroup(pid, pod.uuid())?
            .as_deref()
            .and_then(limit),
    })
}

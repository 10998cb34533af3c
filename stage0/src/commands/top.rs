//! `fairing top`: the processes of a running pod, as its stage 1 tells of them.

use std::io::{BufReader, Read};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Context;
use crate::pods::{Pod, Report};
use crate::processes::{Process, Said};
use crate::reading::{drain, serve};
use crate::table::{self, TableFlags};

/// The most that a pod says of its processes, bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Lists the processes of a running pod
#[derive(Debug, Args)]
#[command(
    after_help = "USER, PID and PPID are the pod's, not the host's. What COMMAND holds is the processes' to choose: control characters \
    are shown as escapes."
)]
pub struct Top {
    /// Only processes of this app
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// The pod; a unique beginning is enough
    pub uuid: String,
    #[command(flatten)]
    pub table: TableFlags,
}

impl Top {
    /// Prints the list.
    ///
    /// # Errors
    /// If the pod does not run, or its stage 1 does not tell of processes.
    pub fn run(self, context: &Context) -> Result<i32> {
        let pod = context.pods.find(&self.uuid)?;
        pod.expect_running()?;
        let asked = match &self.app {
            Some(app) => app.clone(),
            None => any_app(&pod)?,
        };
        let mut serve = serve(&pod, &asked, &["processes"])?;
        let said: Said = drain(serve.stdin(Stdio::null()), |said| {
            serde_json::from_reader(BufReader::new(said.take(MAX_BYTES)))
                .context("read what the pod says of its processes")
        })?;
        let mut processes = said.processes()?;
        processes.retain(|process| process.own || self.app.is_none());
        let titles = [
            "USER", "PID", "PPID", "STATE", "CPU TIME", "MEMORY", "AGE", "COMMAND",
        ];
        let rows = processes.iter().map(row);
        self.table
            .print(&processes, titles.map(str::to_owned), rows)?;
        Ok(0)
    }
}

/// The first app that runs: all apps see the same processes.
fn any_app(pod: &Pod) -> Result<String> {
    let report = Report::of(pod)?;
    let runs = |name: &&String| {
        report
            .apps
            .get(*name)
            .is_some_and(|app| app.state == "running")
    };
    let running = report.app_names.iter().find(runs);
    running
        .cloned()
        .with_context(|| format!("no app of pod {} runs", pod.uuid()))
}

fn row(process: &Process) -> [String; 8] {
    let seconds = |ms: u64| format!("{}.{:02}s", ms / 1000, ms / 10 % 100);
    [
        process.user.to_string(),
        process.pid.to_string(),
        process.parent.to_string(),
        table::printable(&process.state.to_string()),
        seconds(process.cpu_ms),
        table::bytes(process.memory_bytes),
        seconds(process.age_ms),
        table::printable(&process.command),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_of_a_process_that_writes_to_terminals_is_harmless() {
        let process = Process {
            pid: 7,
            parent: 1,
            user: 0,
            own: true,
            state: 'S',
            cpu_ms: 61_230,
            memory_bytes: 1536,
            age_ms: 5,
            command: "a\u{1b}[2J\u{9b}b\n".to_owned(),
        };
        let expected = [
            "0",
            "7",
            "1",
            "S",
            "61.23s",
            "1.5KiB",
            "0.00s",
            "a\\u{1b}[2J\\u{9b}b\\n",
        ];
        assert_eq!(row(&process), expected);
    }
}

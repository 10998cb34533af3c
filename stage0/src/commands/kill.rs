//! `fairing kill`: signals the apps of pods, or kills the pods.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use contract::PodProcess;
use contract::signal::PASSED_ON;
use nix::libc;

use super::Context;
use super::chosen::ChosenPods;
use crate::cli::parse_signal;

/// Sends a signal to the apps of running pods; KILL ends the pods at once
#[derive(Debug, Args)]
pub struct Kill {
    #[command(flatten)]
    pub pods: ChosenPods,
    /// HUP, INT, QUIT, USR1, USR2, TERM or KILL, or its number
    #[arg(long, short = 's', value_name = "SIGNAL", default_value = "KILL", value_parser = parse_signal)]
    pub signal: i32,
}

impl Kill {
    /// Signals every pod that runs; waits for nothing.
    ///
    /// # Errors
    /// If no app can be sent the signal, or a file of UUIDs cannot be read.
    pub fn run(self, context: &Context) -> Result<i32> {
        let signal = self.signal;
        if signal != libc::SIGKILL && !PASSED_ON.contains(&signal) {
            bail!(
                "signal {signal} does not reach the apps of a pod; `fairing kill --help` lists those that do"
            );
        }
        self.pods.for_each(context, |pod| {
            let what = || format!("signal pod {}", pod.uuid());
            let process = PodProcess::open(pod.path(), pod.running_pid()?).with_context(what)?;
            process.signal(signal).with_context(what)?;
            crate::print_line(&format!("{:?}", pod.uuid()))
        })
    }
}

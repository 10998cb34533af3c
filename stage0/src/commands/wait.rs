//! `fairing wait`: waits for the end of pods, and prints their exit codes.

use anyhow::{Context as _, Result};
use clap::Args;

use super::Context;
use super::chosen::ChosenPods;
use crate::pods::{Pod, Report};

/// Waits until pods have exited, and prints the exit code of each
#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    pub pods: ChosenPods,
}

impl Wait {
    /// Waits for one after the other.
    ///
    /// # Errors
    /// If a file of UUIDs cannot be read.
    pub fn run(self, context: &Context) -> Result<i32> {
        self.pods.for_each(context, |pod| {
            let code = exit_code(&pod, context)?;
            crate::print_line(&code.to_string())
        })
    }
}

/// The exit code of a pod, once it has one.
fn exit_code(pod: &Pod, context: &Context) -> Result<i32> {
    // As long as it is looked at, nobody removes it.
    let _look = pod.wait_unlocked()?;
    let pod = context.pods.find(pod.uuid())?;
    Report::of(&pod)?.exit_code().with_context(|| {
        format!(
            "pod {} left no exit code: it was killed, or failed before it had a machine",
            pod.uuid()
        )
    })
}

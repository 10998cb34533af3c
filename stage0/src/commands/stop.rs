//! `fairing stop`: asks a pod's stage 1 to end it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Context;
use super::chosen::ChosenPods;
use crate::pods::{Pod, State};
use crate::stage1::Stage1;

/// Stops running pods
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    pub pods: ChosenPods,
    /// End the machine at once, without telling the apps
    #[arg(long, short = 'f')]
    pub force: bool,
}

impl Stop {
    /// Stops every pod that runs; does not wait for their end.
    ///
    /// # Errors
    /// If a file of UUIDs cannot be read.
    pub fn run(self, context: &Context) -> Result<i32> {
        self.pods.for_each(context, |pod| self.stop(&pod))
    }

    fn stop(&self, pod: &Pod) -> Result<()> {
        let state = pod.state()?;
        if state != State::Running {
            bail!("pod {} is not running but {state}", pod.uuid());
        }
        let status = Command::new(Stage1::of_pod(pod)?.entrypoint("stop")?)
            .args(self.force.then_some("--force"))
            .arg(pod.uuid())
            .current_dir(pod.path())
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("run the stop entrypoint of pod {}", pod.uuid()))?;
        if !status.success() {
            bail!("pod {} was not stopped: {status}", pod.uuid());
        }
        crate::print_line(&format!("{:?}", pod.uuid()))
    }
}

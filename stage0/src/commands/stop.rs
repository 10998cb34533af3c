//! `fairing stop`: asks a pod's stage 1 to end it, and waits until it has.

use std::cell::RefCell;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Context;
use super::chosen::ChosenPods;
use crate::pods::Pod;
use crate::stage1::Stage1;

/// Stops running pods: asks their apps to end, kills those that have not when the time of --stop-timeout is over
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    pub pods: ChosenPods,
    /// End the machine at once, without telling the apps
    #[arg(long, short = 'f')]
    pub force: bool,
}

impl Stop {
    /// Stops every pod that runs; waits for their end together.
    ///
    /// # Errors
    /// If a file of UUIDs cannot be read.
    pub fn run(self, context: &Context) -> Result<i32> {
        let stopping = RefCell::new(Vec::new());
        let code = self.pods.for_each(context, |pod| {
            self.stop(&pod)?;
            stopping.borrow_mut().push(pod);
            Ok(())
        })?;
        for pod in stopping.into_inner() {
            // One that is gone by now has ended, too.
            if let Err(error) = pod.wait_unlocked()
                && pod.exists()
            {
                return Err(error);
            }
            crate::print_line(&format!("{:?}", pod.uuid()))?;
        }
        Ok(code)
    }

    fn stop(&self, pod: &Pod) -> Result<()> {
        pod.expect_running()?;
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
        Ok(())
    }
}

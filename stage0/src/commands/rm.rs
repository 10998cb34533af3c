//! `fairing rm`: deletes pods.

use anyhow::Result;
use clap::Args;

use super::Context;
use super::chosen::ChosenPods;
use crate::pods::remove;

/// Removes pods that are not running, with their logs and status
#[derive(Debug, Args)]
pub struct Rm {
    #[command(flatten)]
    pub pods: ChosenPods,
}

impl Rm {
    /// Removes every pod that can be.
    ///
    /// # Errors
    /// If a file of UUIDs cannot be read.
    pub fn run(self, context: &Context) -> Result<i32> {
        self.pods.for_each(context, |pod| {
            let lock = pod.lock_idle()?;
            let uuid = pod.uuid().to_owned();
            remove(pod, &lock, &context.settings)?;
            crate::print_line(&format!("{uuid:?}"))
        })
    }
}

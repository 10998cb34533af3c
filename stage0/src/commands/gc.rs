//! `fairing gc`: deletes pods that have been exited long enough, and what killed imports left in the store.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;

use super::Context;
use crate::acis;
use crate::cli::parse_duration;
use crate::images;
use crate::networks;
use crate::pods::{Folder, Pod, release_exited, remove};

/// Removes pods that exited some time ago, and what killed commands left
#[derive(Debug, Args)]
pub struct Gc {
    /// How long an exited pod is kept after it was marked
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    pub grace_period: Duration,
    /// How long a prepared pod waits for its start
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub expire_prepared: Duration,
    /// Have the plugins of networks in net.d of --local-config delete what belongs to no pod of this data directory; nobody else
    /// may use these networks, and no pod be starting (cniVersion 1.1.0)
    #[arg(long, conflicts_with = "mark_only")]
    pub networks: bool,
    /// Mark exited pods, remove nothing
    #[arg(long)]
    pub mark_only: bool,
}

impl Gc {
    /// Marks and removes.
    ///
    /// # Errors
    /// If the pods cannot be listed or the store cannot be swept; a single pod's failure is told, and the exit code then is
    /// our failure code.
    pub fn run(self, context: &Context) -> Result<i32> {
        let mut code = 0;
        for pod in context.pods.all()? {
            if let Err(error) = self.collect(pod, context) {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
        if self.networks {
            for fault in networks::collect(&context.pods, &context.settings)? {
                crate::warn(&fault);
                code = crate::FAILED;
            }
        }
        if !self.mark_only {
            // To open the store is to sweep it, but for what may be resumed.
            let store = images::store(&context.settings)?;
            acis::sweep(&store.downloads());
            store.trim_layers()?;
        }
        Ok(code)
    }

    fn collect(&self, mut pod: Pod, context: &Context) -> Result<()> {
        // In this folder, a pod that can be locked has exited.
        if pod.folder() == Folder::Run
            && let Some(lock) = pod.try_lock()?
        {
            // Where it goes nobody looks for what it still holds before it is removed.
            if let Err(error) = release_exited(&pod, &context.settings) {
                crate::warn(&error);
            }
            pod.move_to(Folder::ExitedGarbage, &lock)?;
        }
        let expired = match pod.folder() {
            Folder::ExitedGarbage => is_older(&pod, self.grace_period),
            Folder::Prepared => is_older(&pod, self.expire_prepared),
            _ => false,
        };
        if !expired || self.mark_only {
            return Ok(());
        }
        if let Some(lock) = pod.try_lock()? {
            crate::note(&format!("removing pod {}", pod.uuid()));
            remove(pod, &lock, &context.settings)?;
        }
        Ok(())
    }
}

/// Whether the pod was moved to its folder at least `period` ago: a rename changes a directory's ctime. The clock of its file
/// system may be ahead of this machine's: then it was now.
fn is_older(pod: &Pod, period: Duration) -> bool {
    let age = |moved| SystemTime::now().duration_since(moved).unwrap_or_default();
    pod.moved().is_some_and(|moved| age(moved) >= period)
}

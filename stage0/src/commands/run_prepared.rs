//! `fairing run-prepared`: starts a pod that `prepare` laid out.

use anyhow::{Result, bail};
use clap::Args;
use contract::annotation;

use super::Context;
use super::run::{Parent, run_arguments, start};
use crate::cli::StartFlags;
use crate::names::Names;
use crate::pods::Folder;

/// Starts a pod that `prepare` laid out
#[derive(Debug, Args)]
pub struct RunPrepared {
    /// The pod; a unique beginning is enough
    pub uuid: String,
    #[command(flatten)]
    pub start: StartFlags,
    /// Remove the pod when it has exited
    #[arg(long)]
    pub rm: bool,
}

impl RunPrepared {
    /// Runs the pod; returns only where this process outlives it.
    ///
    /// # Errors
    /// If the pod is not prepared or cannot be started.
    pub fn run(self, context: &Context) -> Result<i32> {
        let names = Names::new(&self.start.names)?;
        let pod = context.pods.find(&self.uuid)?;
        if pod.folder() != Folder::Prepared {
            bail!("pod {} is not prepared but {}", pod.uuid(), pod.state()?);
        }
        let lock = pod.lock_idle()?;
        names.write(&pod)?;
        let arguments = run_arguments(&self.start, &names, &pod, &context.settings);
        let terminal =
            pod.manifest()?.apps.iter().any(|app| {
                annotation::find(&app.annotations, annotation::APP_STDIN) == Some("tty")
            });
        let parent = Parent {
            remove: self.rm,
            terminal: terminal || self.start.interactive,
        };
        start(pod, lock, &arguments, parent, &context.settings)
    }
}

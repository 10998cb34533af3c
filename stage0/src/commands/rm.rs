//! `fairing rm`: deletes pods.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Context;
use crate::pods::{Pod, remove};

/// Removes pods that are not running, with their logs and status
#[derive(Debug, Args)]
pub struct Rm {
    #[command(flatten)]
    pub pods: PodArguments,
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

/// The pods that a command works on.
#[derive(Debug, Args)]
pub struct PodArguments {
    /// Pods; a unique beginning of each is enough
    #[arg(value_name = "UUID", required_unless_present = "uuid_file")]
    pub uuids: Vec<String>,
    /// File that holds the UUID of a pod
    #[arg(long, value_name = "FILE")]
    pub uuid_file: Option<PathBuf>,
}

impl PodArguments {
    /// Every UUID given.
    ///
    /// # Errors
    /// If the file cannot be read.
    fn all(&self) -> Result<Vec<String>> {
        let mut uuids = self.uuids.clone();
        if let Some(path) = &self.uuid_file {
            let text = fs::read_to_string(path)
                .with_context(|| format!("read a pod's UUID from {}", path.display()))?;
            uuids.push(text.trim().to_owned());
        }
        Ok(uuids)
    }

    /// The one pod given.
    ///
    /// # Errors
    /// If there are several, or none exists.
    pub fn one(&self, context: &Context) -> Result<Pod> {
        let uuids = self.all()?;
        let [uuid] = &uuids[..] else {
            bail!("give one pod, not {}", uuids.len());
        };
        context.pods.find(uuid)
    }

    /// Does the same with each pod, telling what fails; the exit code is 0 only if nothing did.
    ///
    /// # Errors
    /// If the file of UUIDs cannot be read.
    pub fn for_each(&self, context: &Context, act: impl Fn(Pod) -> Result<()>) -> Result<i32> {
        let mut code = 0;
        for uuid in self.all()? {
            if let Err(error) = context.pods.find(&uuid).and_then(&act) {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
        Ok(code)
    }
}

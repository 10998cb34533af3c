//! The pods that a command line names, by UUIDs and by a file with one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use super::Context;
use crate::pods::Pod;

/// The one pod that a command works on.
#[derive(Debug, Args)]
pub struct ChosenPod {
    /// The pod; a unique beginning is enough
    #[arg(value_name = "UUID", required_unless_present = "uuid_file")]
    pub uuid: Option<String>,
    /// File that holds the UUID of the pod
    #[arg(long, value_name = "FILE", conflicts_with = "uuid")]
    pub uuid_file: Option<PathBuf>,
}

impl ChosenPod {
    /// Finds it.
    ///
    /// # Errors
    /// If the file cannot be read, or there is no such pod.
    pub fn find(&self, context: &Context) -> Result<Pod> {
        let in_file = self.uuid_file.as_deref().map(read_uuid).transpose()?;
        let uuid = self.uuid.as_ref().or(in_file.as_ref());
        context.pods.find(uuid.context("no pod is named")?)
    }
}

/// Every pod that a command works on.
#[derive(Debug, Args)]
pub struct ChosenPods {
    /// Pods; a unique beginning of each is enough
    #[arg(value_name = "UUID", required_unless_present = "uuid_file")]
    pub uuids: Vec<String>,
    /// File that holds the UUID of a pod
    #[arg(long, value_name = "FILE")]
    pub uuid_file: Option<PathBuf>,
}

impl ChosenPods {
    /// Does the same with each pod, telling what fails; the exit code is 0 only if nothing did.
    ///
    /// # Errors
    /// If the file of UUIDs cannot be read.
    pub fn for_each(&self, context: &Context, act: impl Fn(Pod) -> Result<()>) -> Result<i32> {
        let mut code = 0;
        let in_file = self.uuid_file.as_deref().map(read_uuid).transpose()?;
        for uuid in self.uuids.iter().chain(&in_file) {
            if let Err(error) = context.pods.find(uuid).and_then(&act) {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
        Ok(code)
    }
}

fn read_uuid(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("read a pod's UUID from {}", path.display()))?;
    Ok(text.trim().to_owned())
}

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
    /// Does the same with each pod, telling what fails; gives the results of those that did not fail. The exit code is 0 only if
    /// nothing failed.
    ///
    /// # Errors
    /// If the file of UUIDs cannot be read.
    pub fn map<T>(
        &self,
        context: &Context,
        act: impl Fn(Pod) -> Result<T>,
    ) -> Result<(Vec<T>, i32)> {
        let in_file = self.uuid_file.as_deref().map(read_uuid).transpose()?;
        Ok(map(self.uuids.iter().chain(&in_file), context, act))
    }

    /// Does the same with each pod, as [`map`](Self::map) does.
    ///
    /// # Errors
    /// If the file of UUIDs cannot be read.
    pub fn for_each(&self, context: &Context, act: impl Fn(Pod) -> Result<()>) -> Result<i32> {
        let (_, code) = self.map(context, act)?;
        Ok(code)
    }
}

/// Does the same with each of the pods that `uuids` name, telling what fails; the exit code is 0 only if nothing did.
pub fn map<'a, T>(
    uuids: impl IntoIterator<Item = &'a String>,
    context: &Context,
    act: impl Fn(Pod) -> Result<T>,
) -> (Vec<T>, i32) {
    let (mut done, mut code) = (Vec::new(), 0);
    for uuid in uuids {
        match context.pods.find(uuid).and_then(&act) {
            Ok(result) => done.push(result),
            Err(error) => {
                crate::warn(&error);
                code = crate::FAILED;
            }
        }
    }
    (done, code)
}

fn read_uuid(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("read a pod's UUID from {}", path.display()))?;
    Ok(text.trim().to_owned())
}

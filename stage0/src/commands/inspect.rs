//! `fairing inspect`: all that is known of pods, as JSON.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use contract::PodManifest;
use serde::Serialize;

use super::Context;
use super::chosen::ChosenPods;
use super::status::Seen;
use crate::cli::Format;

/// Prints all that is known of pods, as a JSON list
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    pub pods: ChosenPods,
    /// json, or json-pretty to read
    #[arg(
        long,
        value_enum,
        default_value = "json-pretty",
        hide_possible_values = true
    )]
    pub format: Format,
}

/// One pod.
#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    status: Seen,
    /// The pod's directory.
    directory: PathBuf,
    /// What its stage 1 was given; none of a pod that is just being laid out.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<PodManifest>,
}

impl Inspect {
    /// Prints the list of those pods that there are, and tells of those that there are not.
    ///
    /// # Errors
    /// If the file of UUIDs cannot be read, or stdout is closed.
    pub fn run(self, context: &Context) -> Result<i32> {
        let (inspected, code) = self.pods.map(context, |pod| {
            Ok(Inspected {
                status: Seen::of(&pod)?,
                directory: pod.path().to_owned(),
                manifest: pod.manifest().ok(),
            })
        })?;
        self.format.print(&inspected)?;
        Ok(code)
    }
}

//! `fairing cat-manifest`: prints a pod's manifest.

use anyhow::Result;
use clap::Args;

use super::Context;
use super::chosen::ChosenPod;

/// Prints the manifest of a pod
#[derive(Debug, Args)]
pub struct CatManifest {
    #[command(flatten)]
    pub pod: ChosenPod,
    /// On several lines [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub pretty_print: bool,
}

impl CatManifest {
    /// Prints it.
    ///
    /// # Errors
    /// If there is no such pod, or its manifest is damaged.
    pub fn run(self, context: &Context) -> Result<i32> {
        let manifest = self.pod.find(context)?.manifest()?;
        crate::print_line(&if self.pretty_print {
            serde_json::to_string_pretty(&manifest)?
        } else {
            serde_json::to_string(&manifest)?
        })?;
        Ok(0)
    }
}

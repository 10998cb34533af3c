//! `fairing enter`: executes a command inside a running pod, by its stage 1's `enter` entrypoint (contract section 1.4).

use std::os::unix::process::CommandExt;

use anyhow::{Context as _, Result};
use clap::Args;

use super::Context;
use crate::apps::entering;
use crate::stage1::Stage1;

/// Executes a command inside a running pod
#[derive(Debug, Args)]
pub struct Enter {
    /// App to enter; needed in a pod of several
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// The pod; a unique beginning is enough
    pub uuid: String,
    /// What to execute [default: /bin/bash]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

impl Enter {
    /// Becomes the entrypoint.
    ///
    /// # Errors
    /// If the pod is not running, or its stage 1 cannot enter it.
    pub fn run(self, context: &Context) -> Result<i32> {
        let pod = context.pods.find(&self.uuid)?;
        let pid = pod.running_pid()?;
        let app = pod.app_or_only(self.app.as_deref(), "--app")?;
        let mut words = self.command;
        if words.is_empty() {
            words.push("/bin/bash".to_owned());
        }
        let enter = Stage1::of_pod(&pod)?.entrypoint("enter")?;
        let error = entering(&enter, &pod, pid, &app, &words).exec();
        Err(error).with_context(|| format!("execute the enter entrypoint of pod {}", pod.uuid()))
    }
}

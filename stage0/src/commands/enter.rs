//! `fairing enter`: executes a command inside a running pod, by its stage 1's `enter` entrypoint (contract section 1.4).

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Context;
use crate::pods::Pod;
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
        let app = self.app_name(&pod)?;
        let mut words = self.command;
        if words.is_empty() {
            words.push("/bin/bash".to_owned());
        }
        let error = Command::new(Stage1::of_pod(&pod)?.entrypoint("enter")?)
            .arg(format!("--pid={pid}"))
            .arg(format!("--appname={app}"))
            .arg("--")
            .args(words)
            .current_dir(pod.path())
            .exec();
        Err(error).with_context(|| format!("execute the enter entrypoint of pod {}", pod.uuid()))
    }

    fn app_name(&self, pod: &Pod) -> Result<String> {
        if let Some(name) = &self.app {
            return Ok(name.clone());
        }
        let apps = pod.manifest()?.apps;
        let names: Vec<_> = apps.iter().map(|app| app.name.as_str()).collect();
        match names[..] {
            [only] => Ok(only.to_owned()),
            _ => bail!(
                "pod {} has the apps {}; choose one by --app",
                pod.uuid(),
                names.join(", ")
            ),
        }
    }
}

//! `fairing app sandbox`: runs a pod that has no apps yet.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::app::PodRequest;
use crate::cli::{PodFlags, Rootfs, SandboxFlags, StartFlags};
use crate::commands::Context;
use crate::commands::prepare::Laid;
use crate::commands::run::{Parent, begin, detach, start};

/// What the help ends with.
const AFTER_HELP: &str = "\
The pod runs until it is stopped, whatever becomes of its apps.

Example:
  pod=$(fairing app sandbox -d --memory=2Gi)
  fairing app add $pod debian.tar --name=web -- sh -c 'while date; do sleep 1; done'
  fairing app start $pod --app=web
  fairing stop $pod";

/// Runs a pod without apps, which takes them while it runs
#[derive(Debug, Args)]
#[command(
    after_help = AFTER_HELP,
    mut_arg("pod_manifest", |arg| arg.hide(true)),
    mut_arg("inherit_env", |arg| arg.hide(true)),
    mut_arg("set_env", |arg| arg.hide(true)),
    mut_arg("set_env_file", |arg| arg.hide(true)),
    mut_arg("max_image_size", |arg| arg.hide(true)),
    mut_arg("rootfs", |arg| arg.hide(true)),
    mut_arg("interactive", |arg| arg.hide(true))
)]
pub struct Sandbox {
    #[command(flatten)]
    pub pod: PodFlags,
    #[command(flatten)]
    pub sandbox: SandboxFlags,
    /// Remove the pod when it has exited
    #[arg(long, help_heading = "Options of the pod")]
    pub rm: bool,
    /// Print the pod's UUID and leave it running
    #[arg(short = 'd', long, help_heading = "Options of the pod")]
    pub detach: bool,
    /// Write the pod's UUID to this file
    #[arg(long, value_name = "FILE", help_heading = "Options of the pod")]
    pub uuid_file_save: Option<PathBuf>,
    #[command(flatten)]
    pub start: StartFlags,
}

impl Sandbox {
    /// Runs the pod; returns only where this process outlives it.
    ///
    /// # Errors
    /// If the pod cannot be laid out or started.
    pub fn run(self, context: &Context) -> Result<i32> {
        let flags = &self.pod;
        if flags.pod_manifest.is_some() {
            bail!(
                "a pod without apps has no manifest of its user's: fairing run --pod-manifest runs one"
            );
        }
        if flags.rootfs == Rootfs::Shared {
            bail!(
                "--rootfs=shared is for pods that begin with their apps: an added app's root is as its stage 1 takes it best"
            );
        }
        if self.start.interactive {
            bail!(
                "a pod without apps has none to read what is typed: `fairing attach` passes it on to an app"
            );
        }
        if flags.inherit_env || !flags.set_env.is_empty() || !flags.set_env_file.is_empty() {
            bail!(
                "a pod without apps has no environment: --environment of `fairing app add` sets an app's"
            );
        }
        self.sandbox.check()?;
        let request = PodRequest {
            sandbox: Some(&self.sandbox),
            ..PodRequest::new(flags, &[], context.settings.pod_uids)
        };
        let uuid_file = self.uuid_file_save.as_deref();
        let (Laid { pod, lock }, arguments) = begin(&request, &self.start, uuid_file, context)?;
        if self.detach {
            return detach(pod, lock, &arguments, self.rm);
        }
        let parent = Parent {
            remove: self.rm,
            terminal: false,
        };
        start(pod, lock, &arguments, parent, &context.settings)
    }
}

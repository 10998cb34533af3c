//! `fairing run`: lays a pod out and hands it to stage 1.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Args;
use contract::RunArguments;

use super::Context;
use super::prepare::{Laid, lay_out};
use super::status;
use crate::app::PodRequest;
use crate::cli::{AppFlags, AppWords, PodFlags, StartFlags};
use crate::launch::{self, Launch};
use crate::names::Names;
use crate::pods::{self, Lock, Pod, remove_ended};
use crate::settings::Settings;

/// What the help ends with.
const AFTER_HELP: &str = "\
IMAGE is an OCI layout or a `docker save` archive, an ACI, a root file system (each a folder or a tar), the name or id of
an image of the store, or docker://NAME in a registry, where any name is looked for that the store does not have.
containers-storage:NAME is what podman or buildah has built, and so is localhost/NAME if the store lacks it. Arguments
after -- replace the Cmd of an OCI image and follow its Entrypoint; to an ACI's exec they are appended. Several images, each with its own flags and arguments ended by ---, make a pod of several
apps.

Examples:
  fairing run debian.tar -- sh -c 'uname -a'
  fairing run -it --rm docker://debian -- bash
  fairing run --memory=1Gi --cpus=2 -e LANG=C image.aci";

/// Runs a command from an image in a virtual machine of its own
#[derive(Debug, Args)]
#[command(
    override_usage = "fairing run [OPTIONS] IMAGE [OPTIONS] [-- ARGUMENT...]",
    after_help = AFTER_HELP
)]
pub struct Run {
    /// What to run
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "pod_manifest",
        conflicts_with = "pod_manifest"
    )]
    pub images: Vec<OsString>,
    #[command(flatten)]
    pub app: AppFlags,
    #[command(flatten)]
    pub pod: PodFlags,
    /// Remove the pod when it has exited
    #[arg(long, help_heading = "Options of the pod")]
    pub rm: bool,
    /// Print the pod's UUID and leave it running: `logs`, `enter`, `wait` and `stop` work on it
    #[arg(short = 'd', long, conflicts_with_all = ["tty", "stdin", "interactive"], help_heading = "Options of the pod")]
    pub detach: bool,
    /// Write the pod's UUID to this file
    #[arg(long, value_name = "FILE", help_heading = "Options of the pod")]
    pub uuid_file_save: Option<PathBuf>,
    #[command(flatten)]
    pub start: StartFlags,
}

impl Run {
    /// Runs the pod; returns only where this process outlives it.
    ///
    /// # Errors
    /// If the pod cannot be laid out or started.
    pub fn run(self, apps: &[AppWords], context: &Context) -> Result<i32> {
        let begun = Instant::now();
        let request = PodRequest {
            interactive: self.start.interactive,
            ..PodRequest::new(&self.pod, apps, context.settings.pod_uids)
        };
        let uuid_file = self.uuid_file_save.as_deref();
        let (Laid { pod, lock }, arguments) = begin(&request, &self.start, uuid_file, context)?;
        if self.pod.timings {
            crate::note(&format!("stage0={}", begun.elapsed().as_micros()));
        }
        if self.detach {
            return detach(pod, lock, &arguments, self.rm);
        }
        let terminal = apps.iter().any(|app| app.flags.tty == Some(true));
        start(
            pod,
            lock,
            &arguments,
            Parent {
                remove: self.rm,
                terminal: terminal || self.start.interactive,
            },
            &context.settings,
        )
    }
}

/// Lays out a pod that is started at once, and says what its stage 1 is told.
///
/// # Errors
/// If it cannot be laid out.
pub fn begin(
    request: &PodRequest,
    flags: &StartFlags,
    uuid_file: Option<&Path>,
    context: &Context,
) -> Result<(Laid, RunArguments)> {
    let names = Names::new(&flags.names)?;
    let laid = lay_out(request, context)?;
    let pod = &laid.pod;
    names.write(pod)?;
    if let Some(path) = uuid_file {
        fs::write(path, format!("{}\n", pod.uuid()))
            .with_context(|| format!("write the pod's UUID to {}", path.display()))?;
    }
    let arguments = RunArguments {
        mutable: request.sandbox.is_some(),
        ..run_arguments(flags, &names, pod, &context.settings)
    };
    Ok((laid, arguments))
}

/// What both `run` and `run-prepared` tell stage 1.
pub fn run_arguments(
    flags: &StartFlags,
    names: &Names,
    pod: &Pod,
    settings: &Settings,
) -> RunArguments {
    if flags.mds_register {
        crate::note("warning: --mds-register is ignored: there is no metadata service");
    }
    RunArguments {
        debug: settings.debug,
        local_config: Some(settings.local_config.display().to_string()),
        net: match &flags.net[..] {
            [] => settings.net.clone(),
            net => net.join(","),
        },
        interactive: flags.interactive,
        hostname: flags.hostname.clone(),
        dns_conf_mode: names.mode(),
        disable_capabilities_restriction: settings.is_insecure("capabilities"),
        disable_paths: settings.is_insecure("paths"),
        disable_seccomp: settings.is_insecure("seccomp"),
        ipc: flags.ipc.clone(),
        uuid: pod.uuid().to_owned(),
        ..RunArguments::default()
    }
}

/// Why a parent outlives the pod.
#[derive(Clone, Copy)]
pub struct Parent {
    /// The pod is to be removed.
    pub remove: bool,
    /// A terminal is to be restored.
    pub terminal: bool,
}

/// Hands the pod over.
///
/// # Errors
/// If stage 1 cannot be started; a pod that cannot be removed is only told of, the app's exit code counts.
pub fn start(
    mut pod: Pod,
    lock: Lock,
    arguments: &RunArguments,
    parent: Parent,
    settings: &Settings,
) -> Result<i32> {
    let launch = launch(&mut pod, lock, arguments, parent.remove);
    let terminal = parent.terminal && std::io::stdin().is_terminal();
    let code = match launch {
        Ok(launch) if !parent.remove && !terminal => return Err(launch.exec()),
        Ok(launch) => launch.supervise(),
        Err(error) => Err(error),
    };
    if parent.remove
        && let Err(error) = remove_ended(&pod, settings)
    {
        crate::warn(&error.context("the pod has ended and is left to the next gc"));
    }
    code
}

/// Makes the pod ready to be handed over, marked if it is to be removed in the end.
fn launch(pod: &mut Pod, lock: Lock, arguments: &RunArguments, remove: bool) -> Result<Launch> {
    let launch = Launch::new(pod, lock, arguments)?;
    if remove {
        pods::remove_once_exited(pod)?;
    }
    Ok(launch)
}

/// Hands the pod over to a process of its own, and returns once its apps run. What keeps them from that is printed.
///
/// # Errors
/// If stage 1 cannot be started.
pub fn detach(mut pod: Pod, lock: Lock, arguments: &RunArguments, remove: bool) -> Result<i32> {
    let launch = launch(&mut pod, lock, arguments, remove)?;
    let (mut child, mut told) = launch.detach(&pod)?;
    if status::is_ready(&pod).context("wait until the pod is ready")? {
        crate::print_line(pod.uuid())?;
        return Ok(0);
    }
    let code = launch::exit_code(child.wait().context("wait for the pod")?);
    told.rewind().context("read what the pod has told")?;
    std::io::copy(&mut told, &mut std::io::stderr()).context("read what the pod has told")?;
    crate::note(&format!(
        "pod {} has ended with code {code} before its apps ran",
        pod.uuid()
    ));
    Ok(code)
}

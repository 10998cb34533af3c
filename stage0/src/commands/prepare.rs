//! `fairing prepare`: lays a pod out for a later `run-prepared`. Also the way from a command line to a pod directory.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use super::Context;
use crate::app::{PodFile, PodRequest, check_ports, pod_manifest};
use crate::cli::{AppFlags, AppWords, PodFlags, Rootfs};
use crate::images::{self, Importing};
use crate::layout;
use crate::pods::{Folder, Lock, Pod};
use crate::registries::Pulling;
use crate::stage1::{Finder, Stage1};

/// Lays a pod out for a later `run-prepared`, and prints its UUID
#[derive(Debug, Args)]
#[command(override_usage = "fairing prepare [OPTIONS] IMAGE [OPTIONS] [-- ARGUMENT...]")]
pub struct Prepare {
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
}

impl Prepare {
    /// Prepares the pod.
    ///
    /// # Errors
    /// If it cannot be laid out.
    pub fn run(self, apps: &[AppWords], context: &Context) -> Result<i32> {
        let request = PodRequest::new(&self.pod, apps, context.settings.pod_uids);
        let Laid { mut pod, lock } = lay_out(&request, context)?;
        pod.move_to(Folder::Prepared, &lock)?;
        crate::print_line(pod.uuid())?;
        Ok(0)
    }
}

/// A pod in `prepare`, its lock held.
pub struct Laid {
    pub pod: Pod,
    pub lock: Lock,
}

/// Finds stage 1 and images and lays a pod out.
///
/// # Errors
/// If one of them is missing or unfit.
pub fn lay_out(request: &PodRequest, context: &Context) -> Result<Laid> {
    let flags = request.flags;
    if flags.private_users {
        crate::note(
            "warning: --private-users is ignored: the ids of a pod in a machine of its own are not the host's",
        );
    }
    let pulling = Pulling::new(
        flags.pull.pull_policy,
        &flags.pull.registry,
        &context.settings,
    );
    let finder = Finder {
        settings: &context.settings,
        pulling: pulling.without_updates(),
        quiet: flags.quiet,
    };
    let choice = finder.find(&flags.stage1)?;
    let stage1 = Stage1::unpacked(&choice, &context.settings)?;
    stage1.entrypoint("run")?;
    let of_sandbox = ["app/add", "app/start", "app/stop", "app/rm"];
    for entrypoint in of_sandbox.iter().filter(|_| request.sandbox.is_some()) {
        stage1.entrypoint(entrypoint)?;
    }
    let form = layout::root_form(&stage1, flags.rootfs == Rootfs::Shared)?;
    let store = images::store(&context.settings)?;
    let importing = Importing {
        max_image_size: flags.max_image_size.as_deref(),
        signature: None,
        signature_policy: flags.pull.policy.signature_policy.as_deref(),
        quiet: flags.quiet,
    };
    let (text, manifest, images) = match &flags.pod_manifest {
        Some(path) => {
            let PodFile { bytes, manifest } = PodFile::read(path)?;
            let images = images::of_manifest(&store, &manifest)?;
            (bytes, manifest, images)
        }
        None => {
            let images = request
                .apps
                .iter()
                .map(|app| {
                    let importing = Importing {
                        signature: app.flags.signature.as_deref(),
                        ..importing
                    };
                    images::resolve(&store, &app.image, importing, pulling)
                })
                .collect::<Result<Vec<_>>>()?;
            let manifest = pod_manifest(request, &images)?;
            (serde_json::to_vec(&manifest)?, manifest, images)
        }
    };
    check_ports(&manifest, &images)?;
    let apps: Vec<_> = manifest
        .apps
        .iter()
        .map(|app| &*app.name)
        .zip(&images)
        .collect();
    let (pod, lock) = layout::lay_out(&context.pods, &stage1, &text, &apps, form)?;
    Ok(Laid { pod, lock })
}

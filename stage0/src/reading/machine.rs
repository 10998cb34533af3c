//! The files of a pod that has ended, out of its scratch disk, which only a machine mounts: a pod of its own that has the disk
//! and the image of the one app, runs none of its programs, and is gone when it has sent what is asked for.
//!
//! That it is a pod has it jailed, capped, listed and, whenever this process dies, cleaned up as any.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use contract::annotation::{self, Annotation};
use contract::image::{AC_VERSION, App};
use contract::pod::{PodApp, PodKind};
use contract::{PodManifest, RunArguments, erofs_files, present_erofs_files};

use super::{Tree, taken_from};
use crate::commands::Context;
use crate::launch::Launch;
use crate::layout::write;
use crate::pods::{self, Folder, Lock, Pod, make_directory, remove_ended};
use crate::stage1::Stage1;
use crate::warn;

/// The disk that the pod's writable layers lie on.
///
/// # Errors
/// If it has none, or its stage 1 has no program that reads it.
pub fn disk(pod: &Pod) -> Result<PathBuf> {
    Stage1::of_pod(pod)?.serve()?;
    let disk = pod.dir().scratch_disk();
    if !disk.exists() {
        bail!(
            "pod {} has kept no files: it never ran, or had its writable layers in memory (--tmpfs-root)",
            pod.uuid()
        );
    }
    Ok(disk)
}

/// Hands `take` a tar of `tree`.
///
/// # Errors
/// Those of `take`; if the machine fails.
pub fn read<T>(
    pod: &Pod,
    tree: Tree<'_>,
    context: &Context,
    take: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let (mut reader, lock) = lay_out(pod, tree, context)?;
    let arguments = RunArguments {
        debug: context.settings.debug,
        net: "none".to_owned(),
        uuid: reader.uuid().to_owned(),
        ..RunArguments::default()
    };
    pods::remove_once_exited(&reader)?;
    let launch = Launch::new(&mut reader, lock, &arguments);
    let child = launch.and_then(Launch::pipe);
    let taken = child.and_then(|child| taken_from(child, take));
    if let Err(error) = remove_ended(&reader, &context.settings) {
        warn(&error.context("the pod that read the files is left to the next gc"));
    }
    taken
}

/// A pod for the one app, in `prepare`.
fn lay_out(pod: &Pod, tree: Tree<'_>, context: &Context) -> Result<(Pod, Lock)> {
    let manifest = manifest(&pod.manifest()?, tree)?;
    let (mut reader, lock) = context.pods.create()?;
    reader.move_to(Folder::Prepare, &lock)?;
    let (from, to) = (pod.dir(), reader.dir());
    write(&to.path().join("pod-created"), b"")?;
    write(&to.manifest(), &serde_json::to_vec(&manifest)?)?;
    // Without what the pod has reported and its apps.
    Stage1::of_pod(pod)?.install(&reader, &["rkt", "opt"])?;
    for folder in [to.app_info(tree.app), to.stage2(tree.app)] {
        make_directory(&folder)?;
    }
    let manifest = from.app_image_manifest(tree.app);
    let image = present_erofs_files(&from.app_rootfs_erofs(tree.app)).into_iter();
    let image = image.zip(erofs_files(&to.app_rootfs_erofs(tree.app)));
    let other = [
        (manifest.clone(), to.app_image_manifest(tree.app)),
        (manifest, to.app_info(tree.app).join("manifest")),
        (from.scratch_disk(), to.scratch_disk()),
    ];
    for (from, to) in image.chain(other) {
        fs::hard_link(&from, &to)
            .with_context(|| format!("link {} to {}", from.display(), to.display()))?;
    }
    Ok((reader, lock))
}

/// The manifest of a pod that packs a tree of an app of the pod that has this `manifest`.
fn manifest(manifest: &PodManifest, tree: Tree<'_>) -> Result<PodManifest> {
    let app = manifest.apps.iter().find(|app| app.name == tree.app);
    let app = app.with_context(|| format!("the pod has no app {:?}", tree.app))?;
    let of_disk = [annotation::POD_SCRATCH_SIZE, annotation::POD_UIDS];
    let kept = |annotation: &&Annotation| of_disk.contains(&annotation.name.as_str());
    Ok(PodManifest {
        ac_version: AC_VERSION.to_owned(),
        ac_kind: PodKind::PodManifest,
        apps: vec![PodApp {
            name: app.name.clone(),
            image: app.image.clone(),
            app: Some(App {
                exec: ["pack", tree.path, tree.name].map(str::to_owned).to_vec(),
                user: "0".to_owned(),
                group: "0".to_owned(),
                ..App::default()
            }),
            read_only_root_fs: false,
            mounts: vec![],
            annotations: vec![Annotation::new(annotation::APP_BUILT_IN, "true")],
        }],
        volumes: vec![],
        isolators: vec![],
        annotations: manifest.annotations.iter().filter(kept).cloned().collect(),
        ports: vec![],
    })
}

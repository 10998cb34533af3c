//! Lays out a pod directory (contract sections 1.3 and 1.8): embryo, then prepare, filled there under the pod's lock.
//!
//! A process that dies on the way leaves an unlocked directory, which the next command removes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::PodManifest;
use image::Image;

use crate::pods::{Folder, Lock, Pod, Pods, make_directory};
use crate::stage1::Stage1;

/// Mode of the files in a pod directory.
const FILE_MODE: u32 = 0o640;

/// Makes a pod of these images, in `prepare` and locked.
///
/// # Errors
/// If something cannot be written; what was made is then removed by the next command.
pub fn lay_out(
    pods: &Pods,
    stage1: &Stage1,
    manifest: &PodManifest,
    images: &[Image],
) -> Result<(Pod, Lock)> {
    let (mut pod, lock) = pods.create()?;
    pod.move_to(Folder::Prepare, &lock)?;
    write(&pod.path().join("pod-created"), b"")?;
    write(&pod.dir().manifest(), &serde_json::to_vec(manifest)?)?;
    stage1.install(&pod)?;
    for (app, image) in manifest.apps.iter().zip(images) {
        let text = serde_json::to_vec(&image.manifest)?;
        make_directory(&pod.dir().app_info(&app.name))?;
        write(&pod.dir().app_info(&app.name).join("manifest"), &text)?;
        make_directory(&pod.dir().stage2(&app.name))?;
        write(&pod.dir().app_image_manifest(&app.name), &text)?;
        place_rootfs(&pod, stage1, &app.name, image)?;
    }
    Ok((pod, lock))
}

/// Puts the image's root file system where stage 1 looks for it.
fn place_rootfs(pod: &Pod, stage1: &Stage1, app: &str, image: &Image) -> Result<()> {
    if !stage1.takes_erofs() {
        bail!(
            "stage 1 {} takes root file systems only as directories, which this fairing cannot give it; \
             it takes those that say fairing/stage1/rootfs=erofs in their manifest",
            stage1.name()
        );
    }
    let target = pod.dir().app_rootfs_erofs(app);
    fs::hard_link(&image.rootfs, &target).with_context(|| {
        format!(
            "link {} to {} (images and pods of one --dir must lie on one file system)",
            image.rootfs.display(),
            target.display()
        )
    })
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("write {}", path.display()))
}

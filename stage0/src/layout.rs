//! Lays out a pod directory (contract sections 1.3 and 1.8): embryo, then prepare, filled there under the pod's lock.
//!
//! A process that dies on the way leaves an unlocked directory, which the next command removes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::{PodDir, erofs_files};
use image::Image;

use crate::directories;
use crate::pods::{Folder, Lock, Pod, Pods, make_directory};
use crate::stage1::{RootForm, Stage1};

/// Mode of the files in a pod directory.
const FILE_MODE: u32 = 0o640;

/// Makes a pod with `manifest`, whose apps, by name, run from these images; in `prepare` and locked.
///
/// # Errors
/// If something cannot be written; what was made is then removed by the next command.
pub fn lay_out(
    pods: &Pods,
    stage1: &Stage1,
    manifest: &[u8],
    apps: &[(&str, &Image)],
    form: RootForm,
) -> Result<(Pod, Lock)> {
    let (mut pod, lock) = pods.create()?;
    pod.move_to(Folder::Prepare, &lock)?;
    write(&pod.path().join("pod-created"), b"")?;
    write(&pod.dir().manifest(), manifest)?;
    stage1.install(&pod, &[])?;
    for (app, image) in apps {
        place_app(pod.dir(), app, image, form)?;
    }
    Ok((pod, lock))
}

/// Puts an app and its image into a pod.
///
/// # Errors
/// If something cannot be linked or written.
pub fn place_app(dir: &PodDir, app: &str, image: &Image, form: RootForm) -> Result<()> {
    let text = serde_json::to_vec(&image.manifest)?;
    make_directory(&dir.app_info(app))?;
    write(&dir.app_info(app).join("manifest"), &text)?;
    make_directory(&dir.stage2(app))?;
    write(&dir.app_image_manifest(app), &text)?;
    match form {
        RootForm::Erofs => link_image(image, &dir.app_rootfs_erofs(app)),
        RootForm::Directory => directories::place(dir, app, image),
    }
}

/// In which form the apps' root file systems are given to `stage1`; `shared` asks for directories.
///
/// # Errors
/// If stage 1 does not take them so, or only root can make them so.
pub fn root_form(stage1: &Stage1, shared: bool) -> Result<RootForm> {
    if !shared && stage1.takes(RootForm::Erofs) {
        return Ok(RootForm::Erofs);
    }
    if !stage1.takes(RootForm::Directory) {
        let advice = match shared {
            true => "run without --rootfs=shared",
            false => "choose another (--stage1)",
        };
        bail!(
            "stage 1 {} does not take root file systems as directories yet; {advice}",
            stage1.name()
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "stage 1 {} gets root file systems as directories, and only root may mount an image: run fairing as root, \
             or with a stage 1 that takes EROFS files, as --stage1=kvm does",
            stage1.name()
        );
    }
    Ok(RootForm::Directory)
}

/// Links an image's files into a pod, so that they stay there whatever becomes of the image.
pub(crate) fn link_image(image: &Image, target: &Path) -> Result<()> {
    for (file, target) in image.files().iter().zip(erofs_files(target)) {
        fs::hard_link(file, &target).with_context(|| {
            format!(
                "link {} to {} (images and pods of one --dir must lie on one file system)",
                file.display(),
                target.display()
            )
        })?;
    }
    Ok(())
}

pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("write {}", path.display()))
}

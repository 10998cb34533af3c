//! `fairing export`: an App Container Image of an app as its pod has left it.

use std::fs;
use std::io::BufWriter;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use contract::ImageManifest;
use image::{reframe, write_aci};

use super::Context;
use crate::out::Out;
use crate::pods::Pod;
use crate::reading::{self, Tree};

/// What an App Container Image calls its root file system.
const ROOTFS: &str = "rootfs";

/// Writes an image of an app, with its files as the pod has left them, for `run` and `image import`
#[derive(Debug, Args)]
#[command(
    after_help = "The image is an ACI, compressed by gzip: the app's root as a whole, under the manifest of the image that it ran \
    from. Volumes are not in it. The pod must have ended. Its files are read by a machine of their own, which `list` shows \
    meanwhile.\n\nExample:\n  fairing export 1b4e28ba app.aci && fairing run app.aci"
)]
pub struct Export {
    /// App to export; needed in a pod of several
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// Replace OUT if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// The pod; a unique beginning is enough
    pub uuid: String,
    /// The file to write; meanwhile it is called OUT.part
    pub out: PathBuf,
}

impl Export {
    /// Writes the image.
    ///
    /// # Errors
    /// If the pod runs, or its files cannot be read, or OUT not be written; nothing is left of it then.
    pub fn run(self, context: &Context) -> Result<i32> {
        let pod = context.pods.find(&self.uuid)?;
        let app = pod.app_or_only(self.app.as_deref(), "--app")?;
        reading::expect_still(&pod)?;
        let manifest = manifest(&pod, &app)?;
        let out = Out::create(&self.out, self.overwrite)?;
        let tree = Tree {
            app: &app,
            path: "/",
            name: ROOTFS,
        };
        reading::read(&pod, tree, context, |files| {
            let to = BufWriter::new(out.file());
            write_aci(&manifest, to, |aci| reframe(files, ROOTFS, aci))
                .with_context(|| format!("write {}", out.part().display()))
        })?;
        out.keep()?;
        Ok(0)
    }
}

/// The manifest of the image that the app ran from.
fn manifest(pod: &Pod, app: &str) -> Result<ImageManifest> {
    let path = pod.dir().app_image_manifest(app);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

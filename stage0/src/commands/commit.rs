//! `fairing commit`: an image of an app as its pod has left it, above the image that it ran from.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use image::{Image, Instruction, Store};

use super::Context;
use super::image::Json;
use crate::cli::{Format, parse_bytes};
use crate::images::{self, Importing};
use crate::pods::{Pod, Report};
use crate::progress::Progress;
use crate::reading::{self, Tree};
use crate::registries;

/// What the files are called on their way.
const ROOT: &str = "rootfs";

/// Makes an image of an app, with its files as the pod has left them, and prints its id
#[derive(Debug, Args)]
#[command(
    after_help = "The image is that which the app ran from, and a layer of what the app has changed. Volumes are not in it. The pod \
    must have ended. Its files are read by a machine of their own, which `list` shows meanwhile. The same files give the same \
    image, for its time is that of the app's end.\n\nINSTRUCTION is a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, \
    STOPSIGNAL, USER, VOLUME or WORKDIR. ENTRYPOINT without CMD takes the image's CMD away.\n\nExample:\n  \
    fairing commit --change='CMD [\"/srv/run\"]' --change='ENV MODE=fast' 1b4e28ba example.com/app:2"
)]
pub struct Commit {
    /// Change how the image is run
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    pub change: Vec<Instruction>,
    /// Who has made it
    #[arg(short = 'a', long)]
    pub author: Option<String>,
    /// What is to be said of it in its history
    #[arg(short = 'm', long)]
    pub message: Option<String>,
    /// Make it of one layer
    #[arg(short = 's', long)]
    pub squash: bool,
    /// Refused: an image has no volumes in it
    #[arg(long, hide = true)]
    pub include_volumes: bool,
    /// Refuse an image that would take more
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_image_size: Option<String>,
    /// No progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
    /// The pod, of which a unique beginning is enough, and in a pod of several the app
    #[arg(value_name = "UUID[:APP]")]
    pub pod: String,
    /// What the image is to be called
    pub name: Option<String>,
}

impl Commit {
    /// Makes the image.
    ///
    /// # Errors
    /// If the pod runs, its files cannot be read, or the image not be made; the store is as before then.
    pub fn run(self, context: &Context) -> Result<i32> {
        ensure!(
            !self.include_volumes,
            "--include-volumes: volumes are the pod's, and none of their files is in an image; `fairing cp` copies them out of a pod that runs"
        );
        let (uuid, app) = match self.pod.split_once(':') {
            Some((uuid, app)) => (uuid, Some(app)),
            None => (&*self.pod, None),
        };
        let pod = context.pods.find(uuid)?;
        let app = pod.app_or_only(app, "UUID:APP")?;
        reading::expect_still(&pod)?;
        let store = images::store(&context.settings)?;
        let image = self.make(&store, &pod, &app, context)?;
        match self.format {
            Some(format) => format.print(&Json::of(&image))?,
            None => crate::print_line(&image.id)?,
        }
        Ok(0)
    }

    fn make(&self, store: &Store, pod: &Pod, app: &str, context: &Context) -> Result<Image> {
        let base = base(store, pod, app)?;
        let commit = image::Commit {
            base: &base,
            root: ROOT,
            instructions: &self.change,
            author: self.author.as_deref(),
            message: self.message.as_deref(),
            created: &ended(pod, app)?,
            squash: self.squash,
        };
        let mut options = registries::options(Importing {
            max_image_size: self.max_image_size.as_deref(),
            signature: None,
            signature_policy: None,
            quiet: self.quiet,
        })?;
        options.name.clone_from(&self.name);
        let tree = Tree {
            app,
            path: "/",
            name: ROOT,
        };
        let progress = Progress::of_name(app, self.quiet);
        let image = reading::read(pod, tree, context, |files| {
            store.commit(&commit, files, &options, &|step| progress.tell(step))
        });
        progress.end();
        image
    }
}

/// The image that the app ran from.
fn base(store: &Store, pod: &Pod, app: &str) -> Result<Image> {
    let apps = pod.manifest()?.apps;
    let id = apps.into_iter().find(|other| other.name == app);
    let id = id.map(|app| app.image.id);
    let id = id.with_context(|| format!("pod {} has no app {app:?}", pod.uuid()))?;
    store.find(&id)?.with_context(|| {
        format!(
            "the image {id} that app {app} ran from has left the store; import it again, or have `fairing export` write an image of all files"
        )
    })
}

/// When the app had ended, or, if nothing says so, when its pod was made.
fn ended(pod: &Pod, app: &str) -> Result<String> {
    let report = Report::of(pod)?;
    let ended = report.apps.get(app).and_then(|app| app.finished_at);
    let nanoseconds = ended.or(report.created_at).unwrap_or_default();
    let since = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    Ok(humantime::format_rfc3339(UNIX_EPOCH + since).to_string())
}

//! `fairing app add`: adds an app to a running pod.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::app::added_app;
use crate::apps::Apps;
use crate::cli::{AppFlags, AppWords, PullFlags, parse_bytes};
use crate::commands::Context;
use crate::images::{self, Importing};
use crate::registries::Pulling;

/// Adds an app to a running pod, without starting it
#[derive(Debug, Args)]
#[command(override_usage = "fairing app add [OPTIONS] UUID IMAGE [-- ARGUMENT...]")]
pub struct Add {
    /// The pod; a unique beginning is enough
    pub uuid: String,
    /// What the app runs from
    pub image: OsString,
    /// Arguments of its command
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
    #[command(flatten)]
    pub app: AppFlags,
    /// Refuse to import an image that would take more
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_image_size: Option<String>,
    #[command(flatten)]
    pub pull: PullFlags,
    /// Say nothing but errors
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

impl Add {
    /// Adds the app, and prints its name.
    ///
    /// # Errors
    /// If the pod does not run, or has no room for it.
    pub fn run(self, context: &Context) -> Result<i32> {
        let pod = context.pods.find(&self.uuid)?;
        pod.expect_running()?;
        let importing = Importing {
            max_image_size: self.max_image_size.as_deref(),
            signature: self.app.signature.as_deref(),
            signature_policy: self.pull.policy.signature_policy.as_deref(),
            quiet: self.quiet,
        };
        let store = images::store(&context.settings)?;
        let pulling = Pulling::new(
            self.pull.pull_policy,
            &self.pull.registry,
            &context.settings,
        );
        let image = images::resolve(&store, &self.image, importing, pulling)?;
        let words = AppWords {
            image: self.image,
            flags: self.app,
            arguments: self.arguments,
        };
        let app = added_app(&words, &image)?;
        let name = app.name.clone();
        Apps::of(pod, context.settings.debug)?.add(app, &image)?;
        crate::print_line(&name)?;
        Ok(0)
    }
}

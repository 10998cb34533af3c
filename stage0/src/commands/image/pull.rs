//! `fairing image pull`: images of registries enter the store; rkt's `fetch`, so paths do, too.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::json::Json;
use crate::cli::{Format, PolicyFlags, PullPolicy, RegistryFlags, parse_bytes};
use crate::images::{self, Importing};
use crate::registries::Pulling;
use crate::settings::Settings;

/// Fetches images from registries and web servers
#[derive(Debug, Args)]
pub struct Pull {
    /// [docker://]NAME[:TAG|@DIGEST], a path, an https: URL, or the name of an App Container image: NAME[:VERSION][,LABEL=VALUE];
    /// a name without a registry is looked for as registries.conf says, or else in docker.io
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<OsString>,
    /// When a registry is asked: update, whether the name stands for another image by now; new, for images that the store
    /// lacks; never
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        hide_possible_values = true,
        default_value = "update"
    )]
    pub pull_policy: PullPolicy,
    /// Refuse an image that would take more
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_image_size: Option<String>,
    /// No progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// OpenPGP signature of an App Container image, instead of the one beside it
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
    #[command(flatten)]
    pub policy: PolicyFlags,
    #[command(flatten)]
    pub registry: RegistryFlags,
    /// Accepted for rkt's sake: ids are whole
    #[arg(long, hide = true)]
    pub full: bool,
}

impl Pull {
    pub(super) fn run(&self, store: &image::Store, settings: &Settings) -> Result<i32> {
        let importing = Importing {
            max_image_size: self.max_image_size.as_deref(),
            signature: self.signature.as_deref(),
            signature_policy: self.policy.signature_policy.as_deref(),
            quiet: self.quiet,
        };
        let pulling = Pulling::new(self.pull_policy, &self.registry, settings);
        for word in &self.images {
            let image = images::resolve(store, word, importing, pulling)?;
            match self.format {
                Some(format) => format.print(&Json::of(&image))?,
                None => crate::print_line(&image.id)?,
            }
        }
        Ok(0)
    }
}

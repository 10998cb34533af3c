//! `fairing image import`: what lies at a path enters the store.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::json::Json;
use crate::cli::{Format, PolicyFlags, PullPolicy, RegistryFlags, parse_bytes};
use crate::images::{self, Importing};
use crate::registries::Pulling;
use crate::settings::Settings;

/// Imports images
#[derive(Debug, Args)]
pub struct Import {
    /// An OCI layout, a `docker save` archive, an ACI, or a root file system: a folder or a tar, told apart by content; - is stdin,
    /// containers-storage:NAME what podman or buildah keeps
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Name to give; of an archive with several images, the one to take
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Refuse an image that would take more
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub max_image_size: Option<String>,
    /// When images are fetched on which an App Container image depends: new, if the store lacks them; never
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        hide_possible_values = true,
        default_value = "new"
    )]
    pub pull_policy: PullPolicy,
    /// rkt's older word for --pull-policy=never
    #[arg(long, hide = true)]
    pub store_only: bool,
    /// No progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
    #[command(flatten)]
    pub policy: PolicyFlags,
}

impl Import {
    pub(super) fn run(&self, store: &image::Store, settings: &Settings) -> Result<i32> {
        let importing = Importing {
            max_image_size: self.max_image_size.as_deref(),
            signature: None,
            signature_policy: self.policy.signature_policy.as_deref(),
            quiet: self.quiet,
        };
        let registry = RegistryFlags {
            store_only: self.store_only,
            ..RegistryFlags::default()
        };
        let pulling = Pulling::new(self.pull_policy, &registry, settings);
        for path in &self.paths {
            let image = images::import(store, path, self.name.as_deref(), importing, pulling)?;
            match self.format {
                Some(format) => format.print(&Json::of(&image))?,
                None => crate::print_line(&image.id)?,
            }
        }
        Ok(0)
    }
}

//! Flags of commands that talk to registries.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use registry::Credentials;

use super::PolicyFlags;

/// How registries are reached, beside what this host's containers-registries.conf(5) and logins say.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of registries")]
pub struct RegistryFlags {
    /// Log in to the registry so, whatever logins are kept
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
    pub creds: Option<Credentials>,
    /// File with logins [default: $REGISTRY_AUTH_FILE, or else those of podman and docker]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Folder with the registry's ca.crt, client.cert and client.key [default: that of its name in
    /// /etc/containers/certs.d or /etc/docker/certs.d]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// =false: whoever answers is trusted, and plain text will do; =true: neither, whatever registries.conf says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub tls_verify: Option<bool>,
    /// rkt's older word for --pull-policy=update
    #[arg(long, hide = true)]
    pub no_store: bool,
    /// rkt's older word for --pull-policy=never
    #[arg(long, hide = true, conflicts_with = "no_store")]
    pub store_only: bool,
}

/// Where the images of apps come from that the store may lack.
#[derive(Clone, Debug, Default, Args)]
pub struct PullFlags {
    /// When a registry is asked: new, for images that the store lacks; never; update, whether there is a newer one
    #[arg(
        long,
        visible_alias = "pull",
        value_enum,
        value_name = "POLICY",
        hide_possible_values = true,
        default_value = "new"
    )]
    pub pull_policy: PullPolicy,
    #[command(flatten)]
    pub policy: PolicyFlags,
    #[command(flatten)]
    pub registry: RegistryFlags,
}

/// When a registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// If the store lacks the image.
    #[default]
    #[value(alias = "missing", alias = "ifnotpresent")]
    New,
    /// Not at all.
    Never,
    /// Whether the name stands for another image by now.
    #[value(alias = "always", alias = "newer")]
    Update,
}

fn credentials(text: &str) -> Result<Credentials> {
    text.parse()
}

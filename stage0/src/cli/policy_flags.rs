//! The flag of commands that take images from anywhere.

use std::path::PathBuf;

use clap::Args;

/// Which images are taken.
#[derive(Clone, Debug, Default, Args)]
pub struct PolicyFlags {
    /// What images must be signed by, as containers-policy.json(5) has it [default: containers/policy.json in
    /// ~/.config, or else in /etc]
    #[arg(long, value_name = "FILE")]
    pub signature_policy: Option<PathBuf>,
}

//! Which stage 1 a pod is to have: one flag of ours that takes them all, and rkt's five.

use std::path::PathBuf;

use clap::Args;

/// At most one of them is given.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "stage 1", multiple = false)]
#[command(next_help_heading = "Options of the pod")]
pub struct Stage1Flags {
    /// Stage 1: `kvm`, a directory with manifest and rootfs, an .aci file, an image by name or id, or a URL
    #[arg(long, value_name = "kvm|PATH|IMAGE|URL")]
    pub stage1: Option<String>,
    /// Stage 1 by its directory or file
    #[arg(long, value_name = "PATH")]
    pub stage1_path: Option<PathBuf>,
    /// Stage 1 by its URL, fetched if the store lacks it: file:///PATH, https://...
    #[arg(long, value_name = "URL")]
    pub stage1_url: Option<String>,
    /// Stage 1 by its name, looked for on the web if the store lacks it: NAME[:VERSION]
    #[arg(long, value_name = "NAME")]
    pub stage1_name: Option<String>,
    /// Stage 1 by its id in the store: sha512-...
    #[arg(long, value_name = "ID")]
    pub stage1_hash: Option<String>,
    /// Stage 1 by its name in the folder of stage 1s that is configured, or lib/fairing
    #[arg(long, value_name = "NAME")]
    pub stage1_from_dir: Option<String>,
}

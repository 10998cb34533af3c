//! Flags of one app: after its image, or, in a pod of one app, before it too.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};
use contract::ResourceLimit;
use contract::annotation::Annotation;
use contract::image::Variable;

use super::values::{key_value, quantity_bytes, quantity_cores, signal, variable};

/// What one app is to be.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of an app")]
pub struct AppFlags {
    /// Name of the app in the pod [default: from the image's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Program to run instead of the image's; arguments after -- follow it
    #[arg(long, value_name = "PROGRAM")]
    pub exec: Option<String>,
    /// Replaces an OCI image's Entrypoint and its Cmd: a word, or a JSON list of words
    #[arg(long, value_name = "WORDS", conflicts_with = "exec")]
    pub entrypoint: Option<String>,
    /// Environment variable; without =VALUE the caller's is passed on
    #[arg(short = 'e', long = "environment", visible_alias = "env", value_name = "NAME[=VALUE]", value_parser = variable)]
    pub environment: Vec<Variable>,
    /// User name, number, or path in the image whose owner it is; USER:GROUP sets both
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,
    /// Group name, number, or path in the image whose group it is
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Supplementary group ids
    #[arg(long, value_name = "GID,...", value_delimiter = ',')]
    pub supplementary_gids: Option<Vec<u32>>,
    /// Working directory
    #[arg(
        short = 'w',
        long = "working-dir",
        visible_alias = "workdir",
        value_name = "DIR"
    )]
    pub working_dir: Option<String>,
    /// Limit of memory, as 512Mi or 2G
    #[arg(short = 'm', long, value_name = "BYTES", value_parser = quantity_bytes)]
    pub memory: Option<String>,
    /// Limit of CPUs, as 2, 1.5 or 500m
    #[arg(long = "cpu", visible_alias = "cpus", value_name = "CORES", value_parser = quantity_cores)]
    pub cpu: Option<String>,
    /// Weight among apps that want the CPU, 2 to 262144
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u32).range(2..=262_144))]
    pub cpu_shares: Option<u32>,
    /// Readiness to be killed when memory runs out, -1000 to 1000
    #[arg(long, value_name = "ADJUSTMENT", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
    /// Keep only these capabilities
    #[arg(
        long,
        value_name = "CAP,...",
        value_delimiter = ',',
        conflicts_with = "caps_remove"
    )]
    pub caps_retain: Vec<String>,
    /// Take these capabilities away
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    pub caps_remove: Vec<String>,
    /// Give these capabilities too, as NET_ADMIN; or ALL
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// Take these capabilities away, as CHOWN; or ALL, before --cap-add gives some
    #[arg(long, value_name = "CAP,...", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// Most processes and threads; 0 or -1 for no limit
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub pids_limit: Option<i64>,
    /// Limit of each process, as nofile=1024:4096 or core=0
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<ResourceLimit>,
    /// System calls: mode=retain|remove[,errno=E],CALL,...
    #[arg(long, value_name = "FILTER")]
    pub seccomp: Option<String>,
    /// Signal that asks the app to end, in place of the image's, or SIGTERM
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    pub stop_signal: Option<i32>,
    /// Make the root file system read-only
    #[arg(long, visible_alias = "read-only", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub readonly_rootfs: Option<bool>,
    /// Place a volume: volume=NAME,target=PATH
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Share a folder or file of the host with the app: HOST:TARGET, with :ro read-only, with :cache=auto|always|none as a
    /// volume is (:ro,cache=none)
    #[arg(short = 'v', long, value_name = "HOST:TARGET[:ro]")]
    pub share: Vec<String>,
    /// Give the app this command's stdin (stream), which else is empty (null); or a terminal (tty)
    #[arg(short = 'i', long, value_enum, hide_possible_values = true, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "stream")]
    pub stdin: Option<StdinMode>,
    /// Give the app a terminal
    #[arg(short = 't', long, value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tty: Option<bool>,
    /// Annotation of the app
    #[arg(long, value_name = "NAME=VALUE", value_parser = |text: &str| key_value(text).map(|(name, value)| Annotation::new(&name, value)))]
    pub annotation: Vec<Annotation>,
    /// Annotation of the app without meaning to fairing
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub user_annotation: Vec<(String, String)>,
    /// Label of the app without meaning to fairing
    #[arg(long, visible_alias = "label", value_name = "NAME=VALUE", value_parser = key_value)]
    pub user_label: Vec<(String, String)>,
    /// Accepted for podman's sake: what a pod's processes leave behind is always reaped
    #[arg(long, hide = true)]
    pub init: bool,
    /// OpenPGP signature of an App Container image, instead of the one beside it
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
}

/// Where an app's stdin comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StdinMode {
    Null,
    Stream,
    Tty,
}

/// The flags of a pod's second and later apps, as a command line of their own.
#[derive(Debug, Parser)]
#[command(
    name = "fairing",
    no_binary_name = true,
    args_override_self = true,
    disable_help_flag = true
)]
pub struct AppOnly {
    #[command(flatten)]
    pub flags: AppFlags,
}

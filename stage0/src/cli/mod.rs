//! The command line: global flags and commands, following rkt's names and places, with podman's spellings as aliases.

mod app_flags;
mod pod_flags;
mod policy_flags;
mod registry_flags;
mod split;
mod stage1_flags;
mod values;

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand};

pub use app_flags::{AppFlags, AppOnly, StdinMode};
pub use pod_flags::{NameFlags, PodFlags, Rootfs, SandboxFlags, StartFlags};
pub use policy_flags::PolicyFlags;
pub use registry_flags::{PullFlags, PullPolicy, RegistryFlags};
pub use split::{AppWords, split};
pub use stage1_flags::Stage1Flags;
pub use values::{
    Format, parse_duration, quantity_bytes as parse_bytes, signal as parse_signal,
    time as parse_time,
};

use crate::commands;

/// What the help ends with.
const AFTER_HELP: &str = "\
First steps: `fairing doctor` tells whether this host can run pods, `fairing run IMAGE -- CMD` runs one.

Exit codes: the app's own; 126 not executable; 127 not found; 128+n killed by signal n; 124 timed out; 254 fairing \
itself failed.

Configuration: config.toml in --user-config, --local-config and --system-config; of a setting, the first counts.
  stage1 = \"kvm\"                  Stage 1 of pods that name none: as --stage1 takes it
  stage1-images = \"/srv/stage1s\"  Folder of the stage 1s that --stage1-from-dir names
  pod-uids = \"1879048192:268304384\"   Under root each pod has a uid of its own, of the first 65536 of this range \
 (FIRST:COUNT), or with shared folders 65536 of the rest
  net = \"none\"                  Networks of pods that ask for none by name: as --net takes them
  max-store-size = \"20Gi\"        What the images may take of the disk: as --max-store-size takes it

Registries, logins and certificates are those of podman and docker: containers-registries.conf(5), \
containers-auth.json(5), containers-certs.d(5), config.json with its credential helpers. So is what images must be signed by: \
containers-policy.json(5), containers-registries.d(5).";

/// Runs each pod in a virtual machine of its own
#[derive(Debug, Parser)]
#[command(
    name = "fairing",
    version,
    infer_subcommands = true,
    args_override_self = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalFlags,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line's parser, as the derived one but for what holds in all commands alike.
    pub fn with_switches() -> clap::Command {
        all_alike(Self::command())
    }
}

/// A switch may be given its value, for rkt takes `--quiet=true`, too; help is the same by either name, an option a line.
fn all_alike(command: clap::Command) -> clap::Command {
    let help = Arg::new("help").short('h').long("help");
    command
        .mut_args(|argument| match argument.get_action() {
            ArgAction::SetTrue => argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_name("BOOL")
                .default_missing_value("true")
                .default_value("false")
                .hide_default_value(true)
                .hide_possible_values(true),
            _ => argument,
        })
        .disable_help_flag(true)
        .arg(
            help.action(ArgAction::HelpShort)
                .help_heading("Global options")
                .help("Print this help"),
        )
        .mut_subcommands(all_alike)
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct GlobalFlags {
    /// Data directory: images and pods [default: /var/lib/fairing; without root $XDG_DATA_HOME/fairing]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub dir: Option<PathBuf>,
    /// Say on stderr what happens in stage 0, stage 1 and the machine
    #[arg(long, global = true, help_heading = "Global options")]
    pub debug: bool,
    /// This host's configuration, also given to stage 1
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/etc/fairing",
        help_heading = "Global options"
    )]
    pub local_config: PathBuf,
    /// The distribution's configuration
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/usr/lib/fairing",
        help_heading = "Global options"
    )]
    pub system_config: PathBuf,
    /// This user's configuration [default: $XDG_CONFIG_HOME/fairing]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub user_config: Option<PathBuf>,
    /// Refuse images that would make the store take more
    #[arg(
        long,
        global = true,
        value_name = "BYTES",
        value_parser = parse_bytes,
        help_heading = "Global options"
    )]
    pub max_store_size: Option<String>,
    /// Protections to switch off: of apps capabilities, paths, seccomp, all-run; of images that are fetched image (its
    /// signature), tls, http, all-fetch; all (rkt's others are accepted)
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',', value_parser = INSECURE_OPTIONS, hide_possible_values = true, help_heading = "Global options")]
    pub insecure_options: Vec<String>,
    /// Trust the keys that an App Container image's web page names, unseen
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = "Global options")]
    pub trust_keys_from_https: Option<bool>,
}

/// What `--insecure-options` takes in rkt.
const INSECURE_OPTIONS: [&str; 12] = [
    "none",
    "image",
    "tls",
    "ondisk",
    "http",
    "pubkey",
    "capabilities",
    "paths",
    "seccomp",
    "all-fetch",
    "all-run",
    "all",
];

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<commands::run::Run>),
    Prepare(Box<commands::prepare::Prepare>),
    RunPrepared(commands::run_prepared::RunPrepared),
    #[command(visible_alias = "ps")]
    List(commands::list::List),
    // Its short form in rkt, but for `stats`.
    #[command(alias = "stat")]
    Status(commands::status::Status),
    Logs(commands::logs::Logs),
    Stop(commands::stop::Stop),
    Kill(commands::kill::Kill),
    Wait(commands::wait::Wait),
    #[command(visible_alias = "exec")]
    Enter(commands::enter::Enter),
    Attach(commands::attach::Attach),
    Rm(commands::rm::Rm),
    Gc(commands::gc::Gc),
    CatManifest(commands::cat_manifest::CatManifest),
    Inspect(commands::inspect::Inspect),
    Stats(commands::stats::Stats),
    Top(commands::top::Top),
    Events(commands::events::Events),
    Cp(commands::cp::Cp),
    Export(commands::export::Export),
    Commit(commands::commit::Commit),
    Trust(commands::trust::Trust),
    #[command(subcommand)]
    App(commands::app::App),
    #[command(subcommand)]
    Image(commands::image::Image),
    /// Tells whether this host can run pods, and what to do if not
    Doctor(commands::doctor::Doctor),
    Completion(commands::completion::Completion),
    Man(commands::man::Man),
    /// Prints the versions of fairing and of what passes between the stages
    Version,
}

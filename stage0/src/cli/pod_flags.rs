//! Flags of a pod: those that shape its directory, and those that only its start needs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use contract::image::Variable;
use contract::quantity;

use super::registry_flags::PullFlags;
use super::stage1_flags::Stage1Flags;
use super::values::{assignment, key_value, parse_duration, quantity_bytes, quantity_cores};

/// What a pod is made of: flags of `run` and `prepare`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of the pod")]
pub struct PodFlags {
    #[command(flatten)]
    pub stage1: Stage1Flags,
    /// Run the apps of this pod manifest (appc), whose images are in the store, instead of images named here
    #[arg(long, value_name = "FILE", conflicts_with_all = ["volume", "port", "publish", "inherit_env", "set_env", "set_env_file", "scratch_size", "tmpfs_root", "sysctl", "timeout", "stop_timeout", "timings"])]
    pub pod_manifest: Option<PathBuf>,
    /// Pass the caller's environment on, where the image does not set a variable
    #[arg(long)]
    pub inherit_env: bool,
    /// Environment variable for all apps
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub set_env: Vec<Variable>,
    /// File with one NAME=VALUE a line, for all apps
    #[arg(long, visible_alias = "env-file", value_name = "FILE")]
    pub set_env_file: Vec<PathBuf>,
    /// Volume: NAME,kind=host|empty,source=PATH,readOnly=BOOL,recursive=BOOL,mode=,uid=,gid= and, of a host's,
    /// cache=auto|always|none
    #[arg(long, value_name = "VOLUME")]
    pub volume: Vec<String>,
    /// Expose an app's port: NAME:[IP:]HOSTPORT; without apps yet NAME:PROTOCOL:PODPORT:IP:HOSTPORT
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// Expose a port of the pod that no image need name, or a range; TCP unless told
    #[arg(short = 'p', long, value_name = "[IP:]HOSTPORT:PODPORT[/udp]")]
    pub publish: Vec<String>,
    /// How apps get their root file systems: best, as EROFS files where stage 1 takes them; shared, as directories that
    /// the host mounts (root only)
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        hide_possible_values = true,
        default_value = "best"
    )]
    pub rootfs: Rootfs,
    /// Largest size of the writable layers, as 20Gi
    #[arg(long, value_name = "BYTES", value_parser = quantity_bytes)]
    pub scratch_size: Option<String>,
    /// Keep the writable layers in memory
    #[arg(long)]
    pub tmpfs_root: bool,
    /// Kernel parameter of the pod's machine, as net.ipv4.ip_forward=1
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub sysctl: Vec<(String, String)>,
    /// End the pod after this time, as 90, 1.5s, 10m or 1h30m; the exit code then is 124
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Time between the signal that asks the apps to end and their death
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub stop_timeout: Duration,
    /// Refuse to import an image that would take more
    #[arg(long, value_name = "BYTES", value_parser = quantity_bytes)]
    pub max_image_size: Option<String>,
    /// Print where the time of the start went, on stderr
    #[arg(long)]
    pub timings: bool,
    /// Say nothing but errors
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[command(flatten)]
    pub pull: PullFlags,
    /// rkt's user namespaces, which a machine of its own makes needless
    #[arg(long, hide = true)]
    pub private_users: bool,
    /// Accepted for rkt's sake: stage 1 decides how it layers
    #[arg(long, hide = true)]
    pub no_overlay: bool,
}

/// What a pod is given that begins without apps.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of the pod")]
pub struct SandboxFlags {
    /// Memory for all apps together, as 2Gi [default: 448Mi, and more as apps come that are limited to more]
    #[arg(short = 'm', long, value_name = "BYTES", value_parser = quantity_bytes)]
    pub memory: Option<String>,
    /// Memory up to which the pod grows for apps that come later [default: that of --memory, or else the host's]
    #[arg(long, value_name = "BYTES", requires = "memory", value_parser = quantity_bytes)]
    pub max_memory: Option<String>,
    /// CPUs for all apps together, as 2, 1.5 or 500m [default: as many as the host has]
    #[arg(long = "cpu", visible_alias = "cpus", value_name = "CORES", value_parser = quantity_cores)]
    pub cpu: Option<String>,
    /// CPUs up to which the pod grows for apps that come later [default: those of --cpu, or else the host's]
    #[arg(long, visible_alias = "max-cpus", value_name = "CORES", requires = "cpu", value_parser = quantity_cores)]
    pub max_cpu: Option<String>,
}

impl SandboxFlags {
    /// Refuses a pod that would have to shrink.
    ///
    /// # Errors
    /// If it begins with more than it may have.
    pub fn check(&self) -> Result<()> {
        let pairs = [
            ("memory", &self.memory, &self.max_memory),
            ("cpu", &self.cpu, &self.max_cpu),
        ];
        for (name, begins, most) in pairs {
            let (Some(begins), Some(most)) = (begins, most) else {
                continue;
            };
            if quantity::parse_milli(most)? < quantity::parse_milli(begins)? {
                bail!(
                    "--max-{name}={most} is less than --{name}={begins}, with which the pod begins"
                );
            }
        }
        Ok(())
    }
}

/// What only the start of a pod needs: flags of `run` and `run-prepared`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of the start")]
pub struct StartFlags {
    /// Networks: default, default-restricted, host, user, none, all, or a list of NAME[:ARGUMENTS]; repeatable
    /// [default: what config.toml says, or `default`]
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, default_missing_value = "default")]
    pub net: Vec<String>,
    /// Host name of the pod
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// As -i -t where stdin and stdout are terminals, else as -i
    #[arg(long)]
    pub interactive: bool,
    /// Inter-process communication namespace: auto, private, parent
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    #[command(flatten)]
    pub names: NameFlags,
    /// rkt's metadata service, which there is not
    #[arg(long, hide = true)]
    pub mds_register: bool,
}

/// Where apps look names up.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of the start")]
pub struct NameFlags {
    /// Name server; or `host` for the host's, `none` to leave the image's
    #[arg(long, value_name = "ADDRESS|host|none")]
    pub dns: Vec<String>,
    /// Domain in which names are looked up
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option of resolv.conf(5)
    #[arg(long, value_name = "OPTION")]
    pub dns_opt: Vec<String>,
    /// The pod's domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_domain: Option<String>,
    /// Line of /etc/hosts; or `host` for the host's file
    #[arg(long, value_name = "ADDRESS=NAME|host")]
    pub hosts_entry: Vec<String>,
}

/// How apps get their root file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootfs {
    /// As EROFS files where stage 1 takes them.
    Best,
    /// As directories, which the host mounts.
    Shared,
}

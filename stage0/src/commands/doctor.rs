//! `fairing doctor`: whether this host can run pods, one line for each thing it needs, with what to do if it lacks it.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use landlock::{AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use serde::{Deserialize, Serialize};

use crate::cli::{Format, PullPolicy, RegistryFlags, Stage1Flags};
use crate::registries::Pulling;
use crate::settings::Settings;
use crate::stage1::{Finder, Stage1};

/// Tells whether this host can run pods, and what to do if not
#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub stage1: Stage1Flags,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

/// One thing that pods need, as it was found.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What was found; if that is not enough, what to do.
    found: String,
}

impl Check {
    fn new(name: &'static str, found: Result<String>) -> Self {
        Self {
            name,
            ok: found.is_ok(),
            found: found.unwrap_or_else(|error| format!("{error:#}")),
        }
    }
}

/// What the `probe` entrypoint prints.
#[derive(Deserialize)]
struct Probe {
    kvm: String,
    #[serde(default)]
    reason: String,
    no_owners: Option<String>,
}

impl Doctor {
    /// Examines everything; the exit code is 0 only if pods can run.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn run(self, settings: &Settings) -> Result<i32> {
        let stage1 = self.find_stage1(settings);
        let device = kvm_device();
        let (kvm, shares) = match &stage1 {
            Ok((stage1, _)) => match probe(stage1) {
                Ok(probe) => (kvm(&probe), Ok(shared_folders(&probe))),
                Err(error) => (Err(error), Err(anyhow!("the probe entrypoint failed"))),
            },
            Err(_) => {
                let unknown = || Err(anyhow!("cannot be measured without a stage 1"));
                (unknown(), unknown())
            }
        };
        let kvm = match device {
            Ok(_) => kvm,
            Err(_) => Err(anyhow!("cannot be measured until /dev/kvm can be opened")),
        };
        let checks = [
            Check::new("device", device),
            Check::new("stage 1", stage1.map(|(_, found)| found)),
            Check::new("kvm", kvm),
            Check::new("kernel", kernel()),
            Check::new("data", data_directory(settings)),
            Check::new("networks", networks(settings)),
            Check::new("landlock", landlock()),
            Check::new("shared folders", shares),
        ];
        match self.format {
            Some(format) => format.print(&checks)?,
            None => checks.iter().try_for_each(|check| {
                let verdict = if check.ok { "ok     " } else { "missing" };
                crate::print_line(&format!("{verdict}  {}: {}", check.name, check.found))
            })?,
        }
        Ok(i32::from(!checks.iter().all(|check| check.ok)))
    }

    fn find_stage1(&self, settings: &Settings) -> Result<(Stage1, String)> {
        let registry = RegistryFlags::default();
        let finder = Finder {
            settings,
            pulling: Pulling::new(PullPolicy::New, &registry, settings),
            quiet: false,
        };
        let choice = finder.find(&self.stage1)?;
        let stage1 = Stage1::unpacked(&choice, settings)?;
        stage1.entrypoint("run")?;
        let told = format!(
            "{} in {} ({}), interface {}",
            stage1.name(),
            choice.place,
            choice.chosen_by,
            stage1.interface_version()
        );
        Ok((stage1, told))
    }
}

fn kvm_device() -> Result<String> {
    let path = Path::new("/dev/kvm");
    if !path.exists() {
        bail!(
            "there is no /dev/kvm; load the module kvm_intel or kvm_amd (in a virtual machine: switch on nested \
             virtualization; in a container: pass the device in), or use scripts/on-kvm of a checkout"
        );
    }
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok("/dev/kvm can be opened".to_owned()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
            "/dev/kvm may not be opened; become a member of its group: sudo usermod -aG kvm $USER, then log in again"
        ),
        Err(error) => Err(error).context("open /dev/kvm"),
    }
}

fn probe(stage1: &Stage1) -> Result<Probe> {
    let output = Command::new(stage1.probe()?)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run the probe entrypoint")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("read what the probe entrypoint said ({})", output.status))
}

fn kvm(probe: &Probe) -> Result<String> {
    let reason = &probe.reason;
    match &*probe.kvm {
        "hardware" => Ok(format!("hardware virtualization {reason}")
            .trim_end()
            .to_owned()),
        "software" => bail!(
            "software emulation that cannot boot a kernel {reason}; run commands by scripts/on-kvm CMD"
        ),
        _ => bail!("no usable KVM {reason}; scripts/on-kvm CMD runs commands on an emulated host"),
    }
}

fn kernel() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("read the kernel's version")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // close_range with CLOSE_RANGE_CLOEXEC came with 5.11.
    if version < (5, 11) {
        bail!("Linux {} is too old, 5.11 is needed", release.trim());
    }
    Ok(format!("Linux {}", release.trim()))
}

/// Whether pods' processes are behind Landlock, without which they run all the same. The kernel tells who confines himself: a
/// thread that ends with that.
fn landlock() -> Result<String> {
    let confined = std::thread::spawn(|| {
        let moves = Ruleset::default().handle_access(AccessFs::Refer)?;
        moves.create()?.restrict_self()
    });
    let confined = confined.join().ok().context("ask the kernel")??;
    Ok(match confined.ruleset {
        RulesetStatus::FullyEnforced => "pods' processes are confined by it, too".to_owned(),
        _ => "this kernel has none, or none of Linux 5.19; pods go without this second wall"
            .to_owned(),
    })
}

fn shared_folders(probe: &Probe) -> String {
    let others = match (nix::unistd::geteuid().is_root(), probe.no_owners.as_deref()) {
        (true, _) => return "files keep their owners".to_owned(),
        (false, Some("")) => "your subordinate ids own the others",
        (false, Some(why)) => &format!("there are no other owners: {why}"),
        (false, None) => "of others the stage 1 tells nothing",
    };
    format!("your own files are root's in a pod, {others}")
}

/// Whether there is what the networks of a pod take that asks for none by name.
fn networks(settings: &Settings) -> Result<String> {
    let net = &settings.net;
    let without = "or say net = \"none\" in config.toml, for pods without networks";
    let is_missing = |folders: &[PathBuf], program: &str| {
        let mut places = folders.iter().map(|folder| folder.join(program));
        !places.any(|place| place.is_file())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<_> = std::env::split_paths(&path).collect();
    let root = nix::unistd::geteuid().is_root();
    match &**net {
        "none" => return Ok("pods have loopback alone, unless they ask for more".into()),
        "default" if root => {
            let plugins = cni::plugin_folders();
            let mut missing = vec!["ptp", "host-local", "firewall", "portmap"];
            missing.retain(|plugin| is_missing(&plugins, plugin));
            missing.extend(is_missing(&path, "iptables").then_some("iptables"));
            ensure!(
                missing.is_empty(),
                "there is no {}; apt install containernetworking-plugins iptables, {without}",
                missing.join(", ")
            );
        }
        "default" | "user" | "host" if is_missing(&path, "passt") => {
            bail!("there is no passt; apt install passt, {without}")
        }
        _ => {}
    }
    Ok(format!("pods are on {net} unless they ask for others"))
}

fn data_directory(settings: &Settings) -> Result<String> {
    crate::pods::Pods::open(&settings.dir)?;
    Ok(format!("{} can be written", settings.dir.display()))
}

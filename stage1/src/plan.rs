//! From manifests and arguments to what the machine and its apps need. A pure function: it opens nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contract::annotation::{self, Annotation};
use contract::image::{App as ManifestApp, ImageManifest};
use contract::pod::{PodApp, PodManifest};
use contract::{RunArguments, UidRange};
use guest_init::protocol::{self, Boot, Cache, IMAGE_SLOTS, Limits, MAX_SHARES, Scratch, Window};

use crate::growth::Growth;
use crate::life::{GRACE, Stopping};
use crate::limits;
use crate::sizes::{PodLimits, scratch_bytes};
use crate::unsupported;
use crate::volumes::Share;

mod added;
mod planner;
mod stdio;

pub use added::{AddedApp, renumber};
use planner::Planner;
use stdio::check_input;
pub use stdio::{moved, ports, ports_of, streams};

/// rkt's variable for parameters of the guest's kernel; with `--debug` only, for it costs what the warning says.
pub const KERNEL_PARAMETERS: &str = "RKT_HYPERVISOR_EXTRA_KERNEL_PARAMS";

/// The most apps in a pod.
pub const MAX_APPS: usize = IMAGE_SLOTS as usize;

/// What the host has that the plan depends on.
pub struct Host {
    /// CPUs this process may use.
    pub cpus: u64,
    /// Physical memory, MiB.
    pub memory_mib: u64,
    /// The most CPUs KVM gives a machine.
    pub kvm_cpus: u64,
    /// Whether this is root, who may give folders to a process that is shut in.
    pub root: bool,
    /// Size of the terminal on stdin and stdout, if both are one.
    pub window: Option<Window>,
    /// What [`KERNEL_PARAMETERS`] says.
    pub kernel_parameters: String,
}

/// An app's image as stage 0 prepared it.
pub struct PreparedImage {
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Its root file system.
    pub root: PreparedRoot,
}

/// A root file system as stage 0 prepared it.
pub enum PreparedRoot {
    /// An EROFS file, and those that are to be read as if they followed it.
    Erofs {
        /// The files, open.
        files: Vec<File>,
        /// Their sizes, together.
        bytes: u64,
    },
    /// A folder of the app's own, by its path on the host.
    Folder(PathBuf),
}

/// The pod, resolved.
#[derive(Debug)]
pub struct Plan {
    /// The machine, and what the host caps its process at.
    pub growth: Growth,
    /// What the machine is told first; names, clock and entropy are the host's to say.
    pub boot: Boot,
    /// Added to the command line of the machine's kernel.
    pub kernel_parameters: String,
    /// Size of the scratch disk, bytes; `None` = writable layers on a tmpfs.
    pub scratch_bytes: Option<u64>,
    /// Apps in order.
    pub apps: Vec<protocol::App>,
    /// What each of them has in its environment besides, and those that come later.
    pub environment: Vec<(String, String)>,
    /// How many images lie on the images disk: those of the apps that have one, in order.
    pub images: u8,
    /// What the machine may send on its networks, and receive, bytes in a second.
    pub network_bytes: Option<u64>,
    /// Folders and files of the host that the machine is given, by number.
    pub shares: Vec<Share>,
    /// How many more it can be given while it runs.
    pub later_shares: u16,
    /// The uids that the pod may be given one of.
    pub uids: UidRange,
    /// When the pod is ended with exit code 124.
    pub timeout: Option<Duration>,
    /// How the apps are asked to end.
    pub stopping: Stopping,
    /// Whether apps come and go while the pod lives.
    pub mutable: bool,
    /// Whether to report where the time of the start went.
    pub timings: bool,
    /// What the user should know and nothing fails for.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Resolves `pod`, whose app `n` runs from `images[n]`.
    ///
    /// # Errors
    /// For whatever this stage 1 cannot honour and a user would miss.
    pub fn new(
        pod: &PodManifest,
        images: &[PreparedImage],
        arguments: &RunArguments,
        host: &Host,
    ) -> Result<Self> {
        let mut planner = Planner::new(pod, arguments, host.window)?;
        let apps = pod.apps.iter().zip(images).enumerate();
        let apps = apps.map(|(index, (app, image))| planner.app(index, app, image));
        let (apps, signals) = apps.collect::<Result<(Vec<_>, _)>>()?;
        check_input(&apps)?;
        let mut warnings = unsupported::of_pod(pod, arguments);
        warnings.append(&mut planner.warnings);
        warnings.append(&mut planner.volumes.warnings);
        let mut limits = pod_limits(pod, images)?;
        // Who comes later may have no limit.
        limits.apps.extend(arguments.mutable.then(Limits::default));
        let shares = planner.volumes.shares;
        let later_shares = match arguments.mutable && host.root {
            true => MAX_SHARES,
            false => 0,
        };
        let begins = arguments.mutable.then(|| limits::in_the_beginning(pod));
        let shares_folders = later_shares > 0 || !shares.is_empty();
        let growth = limits.growth(begins.transpose()?, host, shares_folders, &mut warnings)?;
        let scratch_bytes = scratch_bytes(&pod.annotations)?;
        let pod_annotation = |name| annotation::find(&pod.annotations, name);
        Ok(Self {
            boot: Boot {
                hostname: hostname(arguments)?,
                resolv: None,
                hosts: None,
                clock_ns: 0,
                entropy: Vec::new(),
                cpus: growth.start.cpus,
                scratch: scratch_bytes.map_or(Scratch::Tmpfs, |_| Scratch::Disk),
                cards: Vec::new(),
                routes: Vec::new(),
                shares: caches(&apps, later_shares),
                limits: limits.pod,
                sysctls: limits::sysctls(pod)?,
                debug: arguments.debug,
            },
            growth,
            kernel_parameters: kernel_parameters(host, arguments.debug, &mut warnings),
            scratch_bytes,
            apps,
            environment: Vec::new(),
            images: planner.numbers.start,
            network_bytes: limits::network_bytes(pod)?,
            shares,
            later_shares,
            uids: pod_annotation(annotation::POD_UIDS)
                .map_or_else(|| Ok(UidRange::default()), str::parse)?,
            timeout: pod_annotation(annotation::POD_TIMEOUT)
                .map(seconds)
                .transpose()?,
            stopping: Stopping {
                signals,
                grace: stop_grace(&pod.annotations)?,
            },
            mutable: arguments.mutable,
            timings: pod_annotation(annotation::POD_TIMINGS) == Some("true"),
            warnings,
        })
    }

    /// Whether the machine has, or can be given, folders of the host.
    pub fn shares_folders(&self) -> bool {
        self.later_shares > 0 || !self.shares.is_empty()
    }
}

/// The file systems of shared folders that the machine has.
fn caches(apps: &[protocol::App], later_shares: u16) -> Vec<Cache> {
    if later_shares > 0 {
        return Cache::ALL.to_vec();
    }
    let shares = apps.iter().flat_map(protocol::App::shares);
    let caches: BTreeSet<_> = shares.map(|(_, cache)| cache).collect();
    caches.into_iter().collect()
}

/// What a user may add to the command line of the machine's kernel while he debugs it.
fn kernel_parameters(host: &Host, debug: bool, warnings: &mut Vec<String>) -> String {
    match host.kernel_parameters.as_str() {
        "" => String::new(),
        parameters if debug => {
            warnings.push(format!(
                "{KERNEL_PARAMETERS}: the machine's kernel is not the one that fairing is tested and measured with; its \
                 protections, speed and stability are yours to judge"
            ));
            parameters.to_owned()
        }
        _ => {
            warnings.push(format!("{KERNEL_PARAMETERS} is ignored without --debug"));
            String::new()
        }
    }
}

/// What the apps of `pod` and it itself are limited to.
///
/// # Errors
/// For a limit that is none.
pub fn pod_limits(pod: &PodManifest, images: &[PreparedImage]) -> Result<PodLimits> {
    let apps = pod.apps.iter().zip(images);
    let limits = apps.map(|(app, image)| limits::of_app(program(app, image)?, &app.annotations));
    Ok(PodLimits {
        apps: limits.collect::<Result<_>>()?,
        pod: limits::of_pod(pod)?,
    })
}

/// The app that runs: the pod manifest's own, else the image's.
///
/// # Errors
/// When neither says.
pub fn program<'a>(pod_app: &'a PodApp, image: &'a PreparedImage) -> Result<&'a ManifestApp> {
    let app = pod_app.app.as_ref().or(image.manifest.app.as_ref());
    app.context("neither the pod manifest nor the image says what to run")
}

/// How long apps have that are asked to end, by the pod's annotations.
///
/// # Errors
/// For what is no time.
pub fn stop_grace(annotations: &[Annotation]) -> Result<Duration> {
    annotation::find(annotations, annotation::POD_STOP_TIMEOUT).map_or(Ok(GRACE), seconds)
}

fn hostname(arguments: &RunArguments) -> Result<String> {
    let name = arguments
        .hostname
        .clone()
        .unwrap_or_else(|| format!("rkt-{}", arguments.uuid));
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    ensure!(
        (1..=64).contains(&name.len()) && name.chars().all(valid),
        "host name {name:?} is not valid"
    );
    Ok(name)
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds: f64 = text
        .parse()
        .with_context(|| format!("read time {text:?} (seconds)"))?;
    Duration::try_from_secs_f64(seconds).with_context(|| format!("a time of {text:?} seconds"))
}

#[cfg(test)]
mod tests;

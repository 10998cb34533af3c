//! From manifests and arguments to what the machine and its apps need. A pure function: it opens nothing.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contract::annotation::{self, Annotation};
use contract::image::{App as ManifestApp, ImageManifest};
use contract::pod::{PodApp, PodManifest};
use contract::{RunArguments, UidRange, signal};
use guest_init::protocol::{
    self, Boot, Cache, IMAGE_SLOT_BYTES, IMAGE_SLOTS, Limits, MAX_SHARES, Scratch, Stdio, Window,
};
use nix::sys::signal::Signal;

use crate::environment;
use crate::growth::Growth;
use crate::isolators;
use crate::life::{GRACE, Stopping};
use crate::limits;
use crate::sizes::{PodLimits, scratch_bytes};
use crate::unsupported;
use crate::volumes::{Resolver, Share};

mod added;
mod stdio;

pub use added::{AddedApp, renumber};
use stdio::{check_input, stdio};
pub use stdio::{entry_stdio, moved, ports, ports_of};

/// The most that command and environment may take, bytes: escaped, it still fits a control message.
const MAX_ARGUMENT_BYTES: usize = 512 << 10;

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
    /// An EROFS file.
    Erofs {
        /// The file, open.
        file: File,
        /// Its size.
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
    /// How many images lie on the images disk: those of the apps that have one, in order.
    pub images: u8,
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
                shares: caches(&apps, later_shares),
                limits: limits.pod,
                sysctls: limits::sysctls(pod)?,
                debug: arguments.debug,
            },
            growth,
            kernel_parameters: kernel_parameters(host, arguments.debug, &mut warnings),
            scratch_bytes,
            apps,
            images: planner.numbers.start,
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
fn program<'a>(pod_app: &'a PodApp, image: &'a PreparedImage) -> Result<&'a ManifestApp> {
    let app = pod_app.app.as_ref().or(image.manifest.app.as_ref());
    app.context("neither the pod manifest nor the image says what to run")
}

fn check_supported(pod: &PodManifest, arguments: &RunArguments) -> Result<()> {
    ensure!(
        arguments.mutable || !pod.apps.is_empty(),
        "the pod manifest has no apps"
    );
    ensure!(
        pod.apps.len() <= MAX_APPS,
        "a pod of {} apps is more than one machine takes ({MAX_APPS})",
        pod.apps.len()
    );
    let mut names = HashSet::new();
    for app in &pod.apps {
        ensure!(
            contract::name::is_ac_name(&app.name),
            "app name {:?} is not an ACName (a-z, 0-9, inner -)",
            app.name
        );
        ensure!(
            names.insert(&app.name),
            "two apps are called {:?}: --name gives another",
            app.name
        );
    }
    ensure!(
        arguments.net.split(',').all(|net| net != "host"),
        "--net=host gives a pod the host's network, which a virtual machine cannot share; use --net=none"
    );
    Ok(())
}

/// Refuses what protects the app or its neighbours and would silently not be there. Shares of resources only slow down.
fn check_isolators(app: &ManifestApp) -> Result<()> {
    for isolator in &app.isolators {
        let name = isolator.name.as_str();
        ensure!(
            isolators::is_known(name) || unsupported::is_share(name),
            "isolator {name} is not supported yet"
        );
    }
    Ok(())
}

/// Resolves apps, one after the other.
struct Planner<'a> {
    arguments: &'a RunArguments,
    /// Size of the terminal that an app can have.
    window: Option<Window>,
    volumes: Resolver<'a>,
    /// Of images: they lie on their disk in the order of the apps that have one.
    numbers: Range<u8>,
    /// What the user should know of apps; the volumes have warnings of their own.
    warnings: Vec<String>,
}

impl<'a> Planner<'a> {
    fn new(
        pod: &'a PodManifest,
        arguments: &'a RunArguments,
        window: Option<Window>,
    ) -> Result<Self> {
        check_supported(pod, arguments)?;
        Ok(Self {
            arguments,
            window,
            volumes: Resolver::new(pod).context("read the pod manifest")?,
            numbers: 0..IMAGE_SLOTS,
            warnings: Vec::new(),
        })
    }

    /// The app that has a place in the pod by `index`, and the signal that asks it to end.
    fn app(
        &mut self,
        index: usize,
        pod_app: &PodApp,
        image: &PreparedImage,
    ) -> Result<(protocol::App, i32)> {
        let program = program(pod_app, image)?;
        let app = self.resolve(index, pod_app, program, image);
        let app =
            app.with_context(|| format!("read app {:?} of the pod manifest", pod_app.name))?;
        let of_app = unsupported::of_app(&pod_app.name, program);
        self.warnings.extend(of_app);
        Ok((app, stop_signal(pod_app, image)?))
    }

    fn resolve(
        &mut self,
        index: usize,
        pod_app: &PodApp,
        program: &ManifestApp,
        image: &PreparedImage,
    ) -> Result<protocol::App> {
        ensure!(
            !program.exec.is_empty(),
            "nothing to run: the image has no command, and none was given after --"
        );
        let working_directory = match program.working_directory.as_str() {
            "" => "/",
            path => path,
        };
        ensure!(
            working_directory.starts_with('/'),
            "working directory {working_directory:?} is not absolute"
        );
        check_isolators(program)?;
        let environment = program.environment.iter();
        let bytes = program.exec.iter().map(String::len).sum::<usize>()
            + environment
                .map(|v| v.name.len() + v.value.len())
                .sum::<usize>();
        ensure!(
            bytes <= MAX_ARGUMENT_BYTES,
            "command and environment take {bytes} bytes; at most {MAX_ARGUMENT_BYTES} can be passed"
        );
        let stdio = stdio(index, &pod_app.annotations, self.arguments, self.window)?;
        let terminal = matches!(stdio, Stdio::Terminal { .. });
        let built_in = annotation::find(&pod_app.annotations, annotation::APP_BUILT_IN);
        let app = protocol::App {
            name: pod_app.name.clone(),
            root: self.root(&image.root)?,
            read_only_root: pod_app.read_only_root_fs,
            restrict_paths: !self.arguments.disable_paths,
            powers: isolators::powers(program, self.arguments)?,
            limits: limits::of_app(program, &pod_app.annotations)?,
            resource_limits: limits::of_processes(&pod_app.annotations)?,
            built_in: built_in == Some("true"),
            exec: program.exec.clone(),
            search_path: environment::search_path(&program.environment, working_directory),
            environment: environment::complete(&program.environment, &pod_app.name, terminal)?,
            working_directory: working_directory.to_owned(),
            user: program.user.clone(),
            group: program.group.clone(),
            supplementary_gids: program.supplementary_gids.clone(),
            mounts: self.volumes.mounts(pod_app, program, image)?,
            pre_start: handler(program, "pre-start")?,
            post_stop: handler(program, "post-stop")?,
            stdio,
        };
        check_message(&app)?;
        Ok(app)
    }

    fn root(&mut self, root: &PreparedRoot) -> Result<protocol::Root> {
        let bytes = match root {
            PreparedRoot::Erofs { bytes, .. } => *bytes,
            PreparedRoot::Folder(source) => {
                let number = self.volumes.share(Share {
                    source: source.clone(),
                    read_only: false,
                    recursive: true,
                });
                return number.map(protocol::Root::Share);
            }
        };
        ensure!(
            bytes <= IMAGE_SLOT_BYTES,
            "the image is larger than {} GiB",
            IMAGE_SLOT_BYTES >> 30
        );
        let number = self.numbers.next().context("too many images for one pod")?;
        Ok(protocol::Root::Image { number, bytes })
    }
}

/// The signal that asks an app to end: what its annotations say, else its image's.
fn stop_signal(pod_app: &PodApp, image: &PreparedImage) -> Result<i32> {
    let of_app = [&pod_app.annotations, &image.manifest.annotations];
    let mut named = of_app.into_iter();
    let name = named.find_map(|annotations| annotation::find(annotations, annotation::STOP_SIGNAL));
    name.map_or(Ok(Signal::SIGTERM as i32), signal::parse)
        .with_context(|| format!("read how app {:?} is asked to end", pod_app.name))
}

/// How long apps have that are asked to end, by the pod's annotations.
///
/// # Errors
/// For what is no time.
pub fn stop_grace(annotations: &[Annotation]) -> Result<Duration> {
    annotation::find(annotations, annotation::POD_STOP_TIMEOUT).map_or(Ok(GRACE), seconds)
}

/// The command of an event handler; empty = none.
fn handler(program: &ManifestApp, event: &str) -> Result<Vec<String>> {
    for handler in &program.event_handlers {
        ensure!(
            matches!(&*handler.name, "pre-start" | "post-stop"),
            "there is no event {:?}; pre-start and post-stop are",
            handler.name
        );
    }
    let handlers = program.event_handlers.iter();
    let mut handlers = handlers.filter(|handler| handler.name == event);
    let Some(handler) = handlers.next() else {
        return Ok(Vec::new());
    };
    ensure!(handlers.next().is_none(), "two event handlers for {event}");
    ensure!(
        !handler.exec.is_empty(),
        "the event handler for {event} has no command"
    );
    Ok(handler.exec.clone())
}

/// A message that is too long would never be sent, and the guest wait for it forever.
fn check_message(app: &protocol::App) -> Result<()> {
    let message = protocol::ToGuest::Start {
        task: 0,
        app: Box::new(app.clone()),
    };
    protocol::send(std::io::sink(), &message)
        .context("command, environment, user and groups are more than can be passed to the guest")
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

//! From manifests and arguments to what the machine and its apps need. A pure function: it opens nothing.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contract::annotation::{self, Annotation};
use contract::image::{App as ManifestApp, ImageManifest};
use contract::pod::{PodApp, PodManifest};
use contract::{RunArguments, UidRange, signal};
use guest_init::protocol::{
    self, Cache, IMAGE_SLOT_BYTES, IMAGE_SLOTS, Limits, MAX_SHARES, Stdio, Window,
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

pub use added::{AddedApp, pod_limits, renumber};
use stdio::{check_input, stdio};
pub use stdio::{entry_stdio, moved, ports, ports_of};

/// The most that command and environment may take, bytes: escaped, it still fits a control message.
const MAX_ARGUMENT_BYTES: usize = 512 << 10;

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
    /// What the apps may use together.
    pub limits: Limits,
    /// Kernel parameters of the machine, by their paths below /proc/sys.
    pub sysctls: Vec<(String, String)>,
    /// Host name in the pod.
    pub hostname: String,
    /// Size of the scratch disk, bytes; `None` = writable layers on a tmpfs.
    pub scratch_bytes: Option<u64>,
    /// Apps in order; app `n` uses image `n` of the images disk.
    pub apps: Vec<protocol::App>,
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
        check_supported(pod, arguments)?;
        let mut warnings = unsupported::of_pod(pod, arguments);
        let mut volumes = Resolver::new(pod).context("read the pod manifest")?;
        let mut apps = Vec::new();
        let mut numbers = 0..IMAGE_SLOTS;
        let mut signals = Vec::new();
        for (index, (pod_app, image)) in pod.apps.iter().zip(images).enumerate() {
            let app = plan_app(
                index,
                pod_app,
                image,
                arguments,
                host,
                &mut volumes,
                &mut numbers,
            );
            apps.push(
                app.with_context(|| format!("read app {:?} of the pod manifest", pod_app.name))?,
            );
            signals.push(stop_signal(pod_app, image)?);
            warnings.extend(unsupported::of_app(&pod_app.name, program(pod_app, image)?));
        }
        check_input(&apps)?;
        warnings.append(&mut volumes.warnings);
        let limits = PodLimits {
            // Who comes later may have no limit.
            apps: apps
                .iter()
                .map(|app| app.limits)
                .chain(arguments.mutable.then(Limits::default))
                .collect(),
            pod: limits::of_pod(pod)?,
            most_apps: if arguments.mutable {
                MAX_APPS
            } else {
                apps.len()
            },
        };
        let shares = volumes.into_shares();
        let later_shares = if arguments.mutable && host.root {
            MAX_SHARES
        } else {
            0
        };
        let begins = arguments.mutable.then(|| limits::in_the_beginning(pod));
        let shares_folders = later_shares > 0 || !shares.is_empty();
        let growth = limits.growth(begins.transpose()?, host, shares_folders, &mut warnings)?;
        let pod_annotation = |name| annotation::find(&pod.annotations, name);
        Ok(Self {
            growth,
            limits: limits.pod,
            sysctls: limits::sysctls(pod)?,
            hostname: hostname(arguments)?,
            scratch_bytes: scratch_bytes(&pod.annotations)?,
            apps,
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
}

impl Plan {
    /// The file systems of shared folders that the machine has.
    pub fn caches(&self) -> Vec<Cache> {
        if self.later_shares > 0 {
            return Cache::ALL.to_vec();
        }
        let caches: BTreeSet<_> = self
            .apps
            .iter()
            .flat_map(protocol::App::shares)
            .map(|(_, cache)| cache)
            .collect();
        caches.into_iter().collect()
    }

    /// Whether the machine has, or can be given, folders of the host.
    pub fn shares_folders(&self) -> bool {
        self.later_shares > 0 || !self.shares.is_empty()
    }

    /// How many images lie on the images disk.
    pub fn images(&self) -> u8 {
        let roots = self.apps.iter().map(|app| app.root);
        let images = roots.filter(|root| matches!(root, protocol::Root::Image { .. }));
        // More have no number.
        u8::try_from(images.count()).unwrap_or(IMAGE_SLOTS)
    }
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

fn plan_app(
    index: usize,
    pod_app: &PodApp,
    image: &PreparedImage,
    arguments: &RunArguments,
    host: &Host,
    volumes: &mut Resolver<'_>,
    numbers: &mut Range<u8>,
) -> Result<protocol::App> {
    let program = program(pod_app, image)?;
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
    let bytes = program.exec.iter().map(String::len).sum::<usize>()
        + program
            .environment
            .iter()
            .map(|v| v.name.len() + v.value.len())
            .sum::<usize>();
    ensure!(
        bytes <= MAX_ARGUMENT_BYTES,
        "command and environment take {bytes} bytes; at most {MAX_ARGUMENT_BYTES} can be passed"
    );
    let stdio = stdio(index, &pod_app.annotations, arguments, host)?;
    let terminal = matches!(stdio, Stdio::Terminal { .. });
    let app = protocol::App {
        name: pod_app.name.clone(),
        root: root(&image.root, volumes, numbers)?,
        read_only_root: pod_app.read_only_root_fs,
        restrict_paths: !arguments.disable_paths,
        powers: isolators::powers(program, arguments)?,
        limits: limits::of_app(program, &pod_app.annotations)?,
        resource_limits: limits::of_processes(&pod_app.annotations)?,
        built_in: annotation::find(&pod_app.annotations, annotation::APP_BUILT_IN) == Some("true"),
        exec: program.exec.clone(),
        search_path: environment::search_path(&program.environment, working_directory),
        environment: environment::complete(&program.environment, &pod_app.name, terminal)?,
        working_directory: working_directory.to_owned(),
        user: program.user.clone(),
        group: program.group.clone(),
        supplementary_gids: program.supplementary_gids.clone(),
        mounts: volumes.mounts(pod_app, program, image)?,
        pre_start: handler(program, "pre-start")?,
        post_stop: handler(program, "post-stop")?,
        stdio,
    };
    check_message(&app)?;
    Ok(app)
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
    let mut handlers = program.event_handlers.iter();
    let handler = handlers.find(|handler| handler.name == event);
    let Some(handler) = handler else {
        return Ok(Vec::new());
    };
    let again = handlers.any(|handler| handler.name == event);
    ensure!(!again, "two event handlers for {event}");
    ensure!(
        !handler.exec.is_empty(),
        "the event handler for {event} has no command"
    );
    Ok(handler.exec.clone())
}

/// Images lie on their disk in the order of the apps that have one.
fn root(
    root: &PreparedRoot,
    volumes: &mut Resolver<'_>,
    numbers: &mut Range<u8>,
) -> Result<protocol::Root> {
    match root {
        PreparedRoot::Erofs { bytes } => {
            ensure!(
                *bytes <= IMAGE_SLOT_BYTES,
                "the image is larger than {} GiB",
                IMAGE_SLOT_BYTES >> 30
            );
            let number = numbers.next().context("too many images for one pod")?;
            Ok(protocol::Root::Image {
                number,
                bytes: *bytes,
            })
        }
        PreparedRoot::Folder(source) => Ok(protocol::Root::Share(volumes.share(Share {
            source: source.clone(),
            read_only: false,
            recursive: true,
        })?)),
    }
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

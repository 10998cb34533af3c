//! The apps of a pod, resolved one after the other: part of [`plan`](super).

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use contract::image::App as ManifestApp;
use contract::pod::{PodApp, PodManifest};
use contract::{RunArguments, annotation, name, signal};
use guest_init::protocol::{self, IMAGE_SLOT_BYTES, IMAGE_SLOTS, Stdio, Window};
use nix::sys::signal::Signal;

use super::stdio::stdio;
use super::{MAX_APPS, PreparedImage, PreparedRoot, program};
use crate::volumes::{Resolver, Share};
use crate::{environment, isolators, limits, unsupported};

/// The most that command and environment may take, bytes: escaped, it still fits a control message.
const MAX_ARGUMENT_BYTES: usize = 512 << 10;

/// Resolves apps, one after the other.
pub(super) struct Planner<'a> {
    arguments: &'a RunArguments,
    /// Size of the terminal that an app can have.
    window: Option<Window>,
    pub volumes: Resolver<'a>,
    /// Of images: they lie on their disk in the order of the apps that have one.
    pub numbers: Range<u8>,
    /// What the user should know of apps; the volumes have warnings of their own.
    pub warnings: Vec<String>,
}

impl<'a> Planner<'a> {
    pub fn new(
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
    pub fn app(
        &mut self,
        index: usize,
        pod_app: &PodApp,
        image: &PreparedImage,
    ) -> Result<(protocol::App, i32)> {
        let name = &pod_app.name;
        let app = self.resolve(index, pod_app, image);
        let app = app.with_context(|| format!("read app {name:?} of the pod manifest"))?;
        let warnings = unsupported::of_app(name, program(pod_app, image)?);
        self.warnings.extend(warnings);
        Ok((app, stop_signal(pod_app, image)?))
    }

    fn resolve(
        &mut self,
        index: usize,
        pod_app: &PodApp,
        image: &PreparedImage,
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
        let name = &app.name;
        name::check("app", name)?;
        ensure!(
            names.insert(name),
            "two apps are called {name:?}: --name gives another"
        );
    }
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

/// The signal that asks an app to end: what its annotations say, else its image's.
fn stop_signal(pod_app: &PodApp, image: &PreparedImage) -> Result<i32> {
    let of_app = [&pod_app.annotations, &image.manifest.annotations];
    let mut named = of_app.into_iter();
    let name = named.find_map(|annotations| annotation::find(annotations, annotation::STOP_SIGNAL));
    name.map_or(Ok(Signal::SIGTERM as i32), signal::parse)
        .with_context(|| format!("read how app {:?} is asked to end", pod_app.name))
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

//! The entrypoints `app/add`, `app/start`, `app/stop` and `app/rm`: an app of a running pod that is mutable. The working
//! directory is the pod directory, into which stage 0 has put what the app is made of.
//!
//! Manifests are read here, outside the jail; the pod's process is told what is new.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use contract::{PodDir, PodManifest, PodProcess, RunArguments};
use guest_init::protocol::Limits;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::assets;
use crate::cgroup;
use crate::clients::{self, Answer, Caller, NewApp, Request};
use crate::environment;
use crate::growth::{Grown, Growth};
use crate::jail::later::{self, PodRoot};
use crate::life::GRACE;
use crate::plan::{self, AddedApp, Plan, PreparedRoot};
use crate::volumes::{Share, Source};

/// Exit code of `app/stop` for an app that does not run: systemd's for a unit that is not there.
const NOT_RUNNING: u8 = 5;

/// How long a machine may take to grow or shrink.
const RESIZING: Duration = Duration::from_secs(20);

/// What is kept of a mutable pod's start.
#[derive(Serialize, Deserialize)]
pub struct Runtime {
    /// Arguments of the `run` entrypoint.
    arguments: Vec<String>,
    growth: Growth,
    /// What every app has in its environment besides.
    environment: Vec<(String, String)>,
}

impl Runtime {
    fn read(pod: &PodDir) -> Result<Self> {
        assets::read_json(&pod.runtime_config())
            .context("read what the pod was started with; was it started as a mutable one?")
    }

    /// Keeps it in the pod directory.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(pod: &PodDir, arguments: Vec<String>, plan: &Plan) -> Result<()> {
        let path = pod.runtime_config();
        let json = serde_json::to_vec(&Self {
            arguments,
            growth: plan.growth,
            environment: plan.environment.clone(),
        })?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o640);
        let written = options
            .open(&path)
            .and_then(|mut file| file.write_all(&json));
        written.with_context(|| format!("write {}", path.display()))
    }
}

/// Does to the app that `argv` names what `deed` says: `--debug=BOOL [--uuid=UUID] --app=NAME`.
///
/// # Errors
/// When the pod does not run, or refuses.
pub fn change(deed: &str, argv: impl Iterator<Item = String>) -> Result<u8> {
    let app = parse(argv)?;
    let pod = PodDir::new(".");
    match deed {
        "app_add" => add(&pod, &app),
        "app_start" => start(&pod, app),
        "app_stop" => stop(&pod, app),
        _ => remove(&pod, &app),
    }
}

fn parse(argv: impl Iterator<Item = String>) -> Result<String> {
    let mut app = None;
    for argument in argv {
        match argument.split_once('=') {
            Some(("--app", name)) => app = Some(name.to_owned()),
            Some(("--debug" | "--uuid", _)) => {}
            _ => bail!("unknown argument {argument:?}"),
        }
    }
    app.context("no --app")
}

fn add(pod: &PodDir, name: &str) -> Result<u8> {
    let manifest: PodManifest = assets::read_json(&pod.manifest())?;
    let Runtime {
        arguments,
        growth,
        environment,
    } = Runtime::read(pod)?;
    let arguments = RunArguments::parse(arguments)?;
    let images = assets::images(pod, &manifest)?;
    let AddedApp {
        mut app,
        stop_signal,
        shares,
        mut warnings,
    } = AddedApp::new(&manifest, &images, name, &arguments)?;
    environment::set(&mut app.environment, &environment);
    let limits = plan::pod_limits(&manifest, &images)?;
    let grown = growth.for_apps(&limits, &app.limits, &mut warnings)?;
    warnings
        .iter()
        .for_each(|warning| crate::tell(&format!("warning: {warning}")));
    // Should what follows fail, the machine stays so until an app is removed.
    resize(pod, grown, false).context("grow the pod's machine")?;
    let apps = manifest.apps.iter().zip(images);
    let image = apps
        .filter(|(app, _)| app.name == name)
        .find_map(|(_, image)| match image.root {
            PreparedRoot::Erofs { files, .. } => Some(files),
            PreparedRoot::Folder(_) => None,
        });
    let beside: Vec<_> = image.iter().flatten().map(AsFd::as_fd).collect();
    let caller = Caller::come(&pod.socket())?;
    let given = Given::give(&caller, &shares)?;
    plan::renumber(&mut app, &given.numbers);
    let added = caller
        .ask(
            &Request::Add(Box::new(NewApp {
                app,
                stop_signal,
                shares: given.new.clone(),
            })),
            &beside,
        )
        .and_then(|()| match caller.hear()? {
            Some(Answer::Done) => Ok(0),
            other => Err(clients::refusal(other)),
        });
    if added.is_err() {
        given.take_back();
    }
    added
}

/// Has the machine grow, or, where it `shrinks`, shrink, and waits until it has. What the host caps it at rises before, and falls
/// after a machine that has shrunk.
fn resize(pod: &PodDir, grown: Grown, shrinks: bool) -> Result<()> {
    cgroup::recap(pod, &grown.caps, true)?;
    let caller = Caller::come(&pod.socket())?;
    caller.ask(&Request::Fit { grown, shrinks }, &[])?;
    ensure!(
        caller.wait(Instant::now().checked_add(RESIZING))?,
        "its kernel does not come to have {} MiB plugged within {RESIZING:?}",
        grown.plugged_mib
    );
    match caller.hear()? {
        Some(Answer::Fits) if shrinks => cgroup::recap(pod, &grown.caps, false),
        Some(Answer::Fits) => Ok(()),
        other => Err(clients::refusal(other)),
    }
}

/// Has the machine give back what only the app `name` needed, as far as its kernel can: it may have put there what it cannot
/// move.
fn shrink(pod: &PodDir, name: &str) -> Result<()> {
    let mut manifest: PodManifest = assets::read_json(&pod.manifest())?;
    manifest.apps.retain(|app| app.name != name);
    let images = assets::images(pod, &manifest)?;
    let limits = plan::pod_limits(&manifest, &images)?;
    let growth = Runtime::read(pod)?.growth;
    let grown = growth.for_apps(&limits, &Limits::default(), &mut vec![])?;
    resize(pod, grown, true)
}

/// Folders and files of the host that a running pod has been given.
struct Given {
    /// In the order in which they were asked for.
    numbers: Vec<u16>,
    /// Those that it did not have before.
    new: BTreeMap<u16, Source>,
    root: Option<PodRoot>,
}

impl Given {
    fn give(caller: &Caller, shares: &[Share]) -> Result<Self> {
        let mut given = Self {
            numbers: Vec::new(),
            new: BTreeMap::new(),
            root: None,
        };
        if shares.is_empty() {
            return Ok(given);
        }
        ensure!(
            nix::unistd::geteuid().is_root(),
            "without root a running pod is given no folders of the host"
        );
        let taken = later::take(shares)?;
        let sources = taken.iter().map(|taken| taken.source.clone());
        caller.ask(&Request::Shares(sources.collect()), &[])?;
        let numbers = match caller.hear()? {
            Some(Answer::Shares(numbers)) => numbers,
            other => return Err(clients::refusal(other)),
        };
        let mut missing = Vec::new();
        for (taken, (number, is_new)) in taken.into_iter().zip(numbers) {
            if is_new {
                given.new.insert(number, taken.source.clone());
                missing.push((number, taken));
            }
            given.numbers.push(number);
        }
        if !missing.is_empty() {
            let root = PodRoot::enter(&PodProcess::of_pod(Path::new("."))?)?;
            root.attach(&missing)?;
            given.root = Some(root);
        }
        Ok(given)
    }

    fn take_back(&self) {
        if let Some(root) = &self.root {
            root.detach(&self.new.keys().copied().collect::<Vec<_>>());
        }
    }
}

fn start(pod: &PodDir, name: String) -> Result<u8> {
    let pod = Caller::come(&pod.socket())?;
    pod.ask(&Request::Start(name), &[])?;
    match pod.hear()? {
        Some(Answer::Started) => Ok(0),
        other => Err(clients::refusal(other)),
    }
}

fn stop(pod: &PodDir, name: String) -> Result<u8> {
    let manifest: PodManifest = assets::read_json(&pod.manifest())?;
    let grace = plan::stop_grace(&manifest.annotations)?;
    let pod = Caller::come(&pod.socket())?;
    pod.ask(&Request::StopApp(name), &[])?;
    let mut deadline = Instant::now().checked_add(grace);
    // What kills the app leaves its post-stop handler, which another kill ends.
    let mut kills = 0..2;
    loop {
        if !pod.wait(deadline)? {
            kills
                .next()
                .context("it does not end; `fairing stop` ends the pod")?;
            // One that fails comes too late: what is heard next says so.
            let _ = pod.ask(&Request::Signal(Signal::SIGKILL as i32), &[]);
            deadline = Instant::now().checked_add(GRACE);
            continue;
        }
        match pod.hear()? {
            // It was just being started.
            Some(Answer::Started) => {}
            Some(Answer::Exited { .. } | Answer::NotStarted { .. }) => return Ok(0),
            Some(Answer::NotRunning) => return Ok(NOT_RUNNING),
            other => return Err(clients::refusal(other)),
        }
    }
}

fn remove(pod: &PodDir, name: &str) -> Result<u8> {
    let caller = Caller::come(&pod.socket())?;
    caller.ask(&Request::Remove(name.to_owned()), &[])?;
    match caller.hear()? {
        Some(Answer::Removed { shares }) => {
            if !shares.is_empty() {
                PodRoot::enter(&PodProcess::of_pod(Path::new("."))?)?.detach(&shares);
            }
            if let Err(error) = shrink(pod, name) {
                crate::tell(&format!(
                    "warning: the pod's machine keeps its size: {error:#}"
                ));
            }
            Ok(0)
        }
        other => Err(clients::refusal(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_the_arguments_of_the_contract() {
        let parsed = |line: &str| parse(line.split_whitespace().map(String::from));
        for line in ["--debug=false --uuid=x --app=web", "--debug=true --app=web"] {
            assert_eq!(parsed(line).expect("valid"), "web");
        }
        for wrong in ["--debug=true", "--app", "--app=a --private-users=x"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}

//! `fairing status`: what a pod is doing, as `key=value` lines like rkt's, and what confines it.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Serialize;

use super::Context;
use super::chosen::ChosenPod;
use crate::cli::{Format, parse_duration};
use crate::jail::Jail;
use crate::networks;
use crate::pods::{Pod, Report, State};
use crate::times;

/// Tells the state of a pod, and what confines its process
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub pod: ChosenPod,
    /// Wait until the pod has exited, or for this long
    #[arg(long, value_name = "BOOL|DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_wait)]
    pub wait: Option<Wait>,
    /// Wait until the pod's apps run, or for this long
    #[arg(long, value_name = "BOOL|DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_wait)]
    pub wait_ready: Option<Wait>,
    /// Have the plugins of its networks check what they have made
    #[arg(long)]
    pub check_networks: bool,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    No,
    Forever,
    For(Duration),
}

/// A pod and what confines it, as JSON.
#[derive(Serialize)]
pub struct Seen {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    jail: Option<Jail>,
}

impl Seen {
    /// Of a pod as it is now; without its jail where the kernel does not show it.
    ///
    /// # Errors
    /// If the pod has gone.
    pub fn of(pod: &Pod) -> Result<Self> {
        let report = Report::of(pod)?;
        let jail = jail(pod, &report).ok().flatten();
        Ok(Self { report, jail })
    }
}

/// What confines the pod's process, if it has one.
fn jail(pod: &Pod, report: &Report) -> Result<Option<Jail>> {
    report.pid.map(|pid| Jail::of(pid, pod.uuid())).transpose()
}

impl Status {
    /// Waits if told to, then prints.
    ///
    /// # Errors
    /// If there is no such pod, or the wait was in vain.
    pub fn run(self, context: &Context) -> Result<i32> {
        let mut pod = self.pod.find(context)?;
        if let Some(wait) = self.wait_ready {
            wait_until(&pod, wait, wait_ready).context("wait until the pod is ready")?;
        }
        if let Some(wait) = self.wait {
            wait_until(&pod, wait, |pod| pod.wait_unlocked().map(drop))
                .context("wait until the pod has exited")?;
            pod = context.pods.find(pod.uuid())?;
        }
        match self.format {
            Some(format) => format.print(&Seen::of(&pod)?)?,
            None => print(&pod)?,
        }
        if self.check_networks {
            networks::check(&pod).context("check the pod's networks")?;
        }
        Ok(0)
    }
}

fn print(pod: &Pod) -> Result<()> {
    let report = Report::of(pod)?;
    let mut lines = vec![format!("state={}", report.state)];
    lines.extend(
        report
            .created
            .map(|time| format!("created={}", times::utc(time))),
    );
    lines.extend(
        report
            .started
            .map(|time| format!("started={}", times::utc(time))),
    );
    if !report.networks.is_empty() {
        lines.push(format!("networks={}", report.network_names()));
        let paths = report.networks.iter();
        let paths: BTreeSet<_> = paths
            .filter_map(|network| network.get("path")?.as_str())
            .collect();
        lines.extend(paths.iter().map(|path| format!("network-path={path}")));
    }
    let state = pod.state()?;
    if state == State::Running || state.has_ended() {
        lines.extend(pod.pid().map(|pid| format!("pid={pid}")));
        lines.push(format!("exited={}", state.has_ended()));
    }
    if report.out_of_memory {
        lines.push("out-of-memory=true".to_owned());
    }
    for name in &report.app_names {
        let code = report.apps.get(name).and_then(|app| app.exit_code);
        lines.extend(code.map(|code| format!("app-{name}={code}")));
    }
    match jail(pod, &report) {
        Ok(jail) => lines.extend(jail.iter().flat_map(Jail::lines)),
        Err(error) => lines.push(format!("jail=unknown ({error:#})")),
    }
    crate::print_line(&lines.join("\n"))
}

fn parse_wait(text: &str) -> Result<Wait> {
    Ok(match text {
        "true" => Wait::Forever,
        "false" => Wait::No,
        _ => Wait::For(parse_duration(text)?),
    })
}

/// Blocks in `event` for as long as `wait` says; the thread of a wait that was in vain ends with the process.
fn wait_until(
    pod: &Pod,
    wait: Wait,
    event: impl FnOnce(&Pod) -> Result<()> + Send + 'static,
) -> Result<()> {
    match wait {
        Wait::No => Ok(()),
        Wait::Forever => event(pod),
        Wait::For(duration) => {
            let (pod, (done, waited)) = (pod.clone(), mpsc::channel());
            thread::spawn(move || done.send(event(&pod)));
            match waited.recv_timeout(duration) {
                Ok(result) => result,
                Err(_) => bail!("it did not happen within {duration:?}"),
            }
        }
    }
}

/// Returns when stage 1 says `ready`.
fn wait_ready(pod: &Pod) -> Result<()> {
    if !is_ready(pod)? {
        bail!("pod {} has exited before it was ready", pod.uuid());
    }
    Ok(())
}

/// Whether stage 1 says `ready` before the pod has exited; waits for one of them.
pub fn is_ready(pod: &Pod) -> Result<bool> {
    let (tell, told) = mpsc::channel();
    let ready = tell.clone();
    let (watched, locked) = (pod.clone(), pod.clone());
    thread::spawn(move || ready.send(wait_ready_link(&watched).map(|()| true)));
    thread::spawn(move || tell.send(locked.wait_unlocked().map(|_| false)));
    let is_ready = told.recv().context("wait for the pod")??;
    Ok(is_ready || has_ready_link(pod))
}

fn wait_ready_link(pod: &Pod) -> Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("watch the pod's report")?;
    let report = pod.dir().report();
    inotify
        .add_watch(
            &report,
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
        )
        .with_context(|| format!("watch {}", report.display()))?;
    while !has_ready_link(pod) {
        inotify.read_events().context("watch the pod's report")?;
    }
    Ok(())
}

fn has_ready_link(pod: &Pod) -> bool {
    std::fs::read_link(pod.dir().supervisor_status())
        .is_ok_and(|target| target.as_os_str() == "ready")
}

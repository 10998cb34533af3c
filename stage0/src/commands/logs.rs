//! `fairing logs`: what the apps of a pod wrote, from the logs that its stage 1 keeps.

use std::io::{ErrorKind, Write};
use std::sync::mpsc;
use std::thread;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use humantime::format_rfc3339_millis;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Context;
use super::chosen::ChosenPod;
use crate::cli::parse_time;
use crate::logs::{AppLog, Record};
use crate::pods::Pod;

/// Shows what the apps of a pod wrote to stdout and stderr
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    pub pod: ChosenPod,
    /// Only of this app
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// Go on until the pod has ended
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Begin with so many lines
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Begin at this time: 2026-01-31T23:59:59Z, or so long ago: 90s, 15m, 2h
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse_time)]
    pub since: Option<SystemTime>,
    /// Put the time before each line
    #[arg(short = 't', long)]
    pub timestamps: bool,
}

/// Records and whose they are.
struct Line {
    record: Record,
    /// Index of the app.
    app: usize,
}

impl Logs {
    /// Prints, and follows if told to.
    ///
    /// # Errors
    /// If there is no such pod or app, or nothing is kept of it.
    pub fn run(self, context: &Context) -> Result<i32> {
        let pod = self.pod.find(context)?;
        let apps = self.apps(&pod)?;
        if !pod.dir().logs().is_dir() {
            bail!(
                "pod {} has no logs: it has not started, or its stage 1 keeps none",
                pod.uuid()
            );
        }
        let mut logs: Vec<_> = apps
            .iter()
            .map(|app| AppLog::open(pod.dir(), app))
            .collect();
        let mut printer = Printer {
            label: (apps.len() > 1).then_some(&*apps),
            timestamps: self.timestamps,
            midline: [false; 2],
        };
        // Before the first look, so that nothing is missed between the two.
        let changes = self.follow.then(|| changes(&pod)).transpose()?;
        let mut lines = read(&mut logs)?;
        if let Some(since) = self.since {
            lines.retain(|line| line.record.time >= since);
        }
        if let Some(count) = self.tail {
            lines.drain(..lines.len().saturating_sub(count));
        }
        let mut open = printer.print(&lines)?;
        for change in changes.into_iter().flatten() {
            let is_over = change?;
            open = open && printer.print(&read(&mut logs)?)?;
            if is_over || !open {
                break;
            }
        }
        Ok(0)
    }

    fn apps(&self, pod: &Pod) -> Result<Vec<String>> {
        let names = pod.manifest()?.apps.into_iter().map(|app| app.name);
        let mut names: Vec<_> = names.collect();
        if let Some(name) = &self.app {
            if !names.contains(name) {
                bail!(
                    "pod {} has no app {name:?}; it has {}",
                    pod.uuid(),
                    names.join(", ")
                );
            }
            names.retain(|known| known == name);
        }
        Ok(names)
    }
}

/// What is new in the logs, in the order in which it was written.
fn read(logs: &mut [AppLog]) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (app, log) in logs.iter_mut().enumerate() {
        let records = log.read()?.into_iter();
        lines.extend(records.map(|record| Line { record, app }));
    }
    lines.sort_by_key(|line| line.record.time);
    Ok(lines)
}

/// Tells when there may be something new, and at last, with `true`, that the pod has ended.
fn changes(pod: &Pod) -> Result<mpsc::Receiver<Result<bool>>> {
    let (tell, told) = mpsc::sync_channel(1);
    let (ended, pod_then) = (tell.clone(), pod.clone());
    thread::spawn(move || ended.send(pod_then.wait_unlocked().map(|_| true)));
    let folder = pod.dir().logs();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("watch the logs")?;
    let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO;
    inotify
        .add_watch(&folder, events)
        .with_context(|| format!("watch {}", folder.display()))?;
    thread::spawn(move || {
        loop {
            let change = inotify.read_events().context("watch the logs");
            // Whoever waits for changes has left when it cannot be told.
            if tell.send(change.map(|_| false)).is_err() {
                break;
            }
        }
    });
    Ok(told)
}

struct Printer<'a> {
    /// The apps' names, where there are several.
    label: Option<&'a [String]>,
    timestamps: bool,
    /// Whether stdout and stderr are within a line.
    midline: [bool; 2],
}

impl Printer<'_> {
    /// Prints, each line where the app wrote it; `false` once nobody reads it.
    fn print(&mut self, lines: &[Line]) -> Result<bool> {
        let mut texts = [Vec::new(), Vec::new()];
        for Line { record, app } in lines {
            let output = usize::from(record.is_error);
            let text = &mut texts[output];
            if !std::mem::replace(&mut self.midline[output], !record.ends) {
                if self.timestamps {
                    write!(text, "{} ", format_rfc3339_millis(record.time))?;
                }
                if let Some(name) = self.label.and_then(|names| names.get(*app)) {
                    write!(text, "{name}: ")?;
                }
            }
            text.extend_from_slice(&record.text);
            if record.ends {
                text.push(b'\n');
            }
        }
        let [out, err] = texts;
        let write = || -> std::io::Result<()> {
            let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
            stdout.write_all(&out)?;
            stdout.flush()?;
            stderr.write_all(&err)
        };
        match write() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("write the logs"),
        }
    }
}

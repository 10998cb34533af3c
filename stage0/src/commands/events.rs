//! `fairing events`: what happens to pods, and what has.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use humantime::format_rfc3339_millis;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Context;
use crate::cli::{Format, parse_time};
use crate::pods::{Event, Folder, Pods, events};

/// What tells that something has happened.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM);

/// Tells what happens to pods: create, start, exit (of an app), died, remove
#[derive(Debug, Args)]
#[command(
    after_help = "Without --since it begins now; with --stream=false it tells what has happened and ends. No process watches the pods: \
    what is told is what their directories say, and what removed ones have left. So of an app that was started again only its last end \
    is told, and a pod that was killed died when the next command looks at it.\n\nExamples:\n  fairing events --since=1h \
    --stream=false\n  fairing events --filter=event=died --format=json"
)]
pub struct Events {
    /// Begin at this time: 2026-01-31T23:59:59Z, or so long ago: 90s, 15m, 2h
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse_time)]
    pub since: Option<SystemTime>,
    /// End with this time, which has passed
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse_time)]
    pub until: Option<SystemTime>,
    /// Only these: event=NAME, app=NAME, pod=UUID (its beginning is enough); of several of one kind any, of several kinds all
    #[arg(long, value_name = "WHAT=VALUE", value_parser = parse_filter)]
    pub filter: Vec<Filter>,
    /// One JSON object a line
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
    /// Go on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = clap::ArgAction::Set)]
    pub stream: bool,
}

/// What an event must be to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Event(String),
    App(String),
    Pod(String),
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        match self {
            Self::Event(name) => event.event.name() == name,
            Self::App(name) => event.app.as_ref() == Some(name),
            Self::Pod(uuid) => event.pod.starts_with(uuid),
        }
    }

    fn is_of_kind_of(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Events {
    /// Prints events until there are no more to come.
    ///
    /// # Errors
    /// If the pods cannot be read or watched, or stdout is closed.
    pub fn run(self, context: &Context) -> Result<i32> {
        let streams = self.stream && self.until.is_none();
        let now = streams.then(SystemTime::now);
        let since = nanoseconds(self.since.or(now).unwrap_or(UNIX_EPOCH));
        let until = self.until.map_or(u64::MAX, nanoseconds);
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("watch the pods")?;
        let mut told = BTreeSet::new();
        loop {
            if streams {
                // Before the look, so that nothing is missed between the two.
                watch(&inotify, &context.pods)?;
            }
            for event in events(&context.pods)? {
                let is_meant = (since..=until).contains(&event.time) && self.takes(&event);
                if is_meant && told.insert(event.clone()) {
                    self.print(&event)?;
                }
            }
            if !streams {
                return Ok(0);
            }
            inotify.read_events().context("watch the pods")?;
        }
    }

    fn takes(&self, event: &Event) -> bool {
        self.filter.iter().all(|filter| {
            let mut alike = self
                .filter
                .iter()
                .filter(|other| other.is_of_kind_of(filter));
            alike.any(|filter| filter.takes(event))
        })
    }

    fn print(&self, event: &Event) -> Result<()> {
        if self.format.is_some() {
            return crate::print_line(&serde_json::to_string(event)?);
        }
        let time = UNIX_EPOCH + Duration::from_nanos(event.time);
        let mut line = format!(
            "{} {} {}",
            format_rfc3339_millis(time),
            event.event.name(),
            event.pod
        );
        if let Some(app) = &event.app {
            line += &format!(" app={app}");
        }
        if let Some(code) = event.exit_code {
            line += &format!(" exit_code={code}");
        }
        crate::print_line(&line)
    }
}

/// Watches whatever changes when something happens; what is watched already stays so.
fn watch(inotify: &Inotify, pods: &Pods) -> Result<()> {
    let mut folders = vec![pods.path().to_owned()];
    folders.extend(Folder::ALL.map(|folder| pods.path().join(folder.name())));
    for folder in folders {
        inotify
            .add_watch(&folder, CHANGES)
            .with_context(|| format!("watch {}", folder.display()))?;
    }
    for pod in pods.in_folder(Folder::Run)? {
        let dir = pod.dir();
        for folder in [dir.path().to_owned(), dir.report(), dir.status()] {
            // One that is not there yet is made in one that is watched, and one that is gone has been told of.
            let _ = inotify.add_watch(&folder, CHANGES);
        }
    }
    Ok(())
}

fn nanoseconds(time: SystemTime) -> u64 {
    u64::try_from(crate::times::nanoseconds(time)).unwrap_or(u64::MAX)
}

fn parse_filter(text: &str) -> Result<Filter> {
    let (what, value) = text.split_once('=').unwrap_or((text, ""));
    let value = value.to_owned();
    Ok(match what {
        "event" => Filter::Event(value),
        "app" => Filter::App(value),
        "pod" | "container" => Filter::Pod(value),
        _ => bail!("there is no filter {what:?}; event, app and pod are"),
    })
}

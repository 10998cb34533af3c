//! What has happened to pods. A pod's directory tells that itself, by the times of files that are written when something happens;
//! when it is removed, it leaves its story in the file `events` beside the others. So nothing is written for this while pods run,
//! and no process watches them.
//!
//! Of an app that was started again only its last end is known. Without an exit code, as after a kill, a pod's end is
//! when the next command has noticed it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use contract::annotation;
use serde::{Deserialize, Serialize};

use super::ended::Ended;
use super::pod::modified;
use super::release::MARK;
use super::{Folder, Pod, Pods};
use crate::times::nanoseconds;

/// Bytes from which on the file of removed pods' stories becomes the one before.
const MAX_BYTES: u64 = 4 << 20;

/// Something that happened; in order of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// What.
    pub event: Kind,
    /// UUID of the pod.
    pub pod: String,
    /// Name of the app that it happened to, if to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Of what has ended, if it left one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The pod was laid out.
    Create,
    /// Its stage 1 began.
    Start,
    /// An app of it ended.
    Exit,
    /// It ended.
    Died,
    /// It was removed.
    Remove,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Exit => "exit",
            Self::Died => "died",
            Self::Remove => "remove",
        }
    }
}

/// What has happened to all pods, as far as it is known, in order.
///
/// # Errors
/// If the pods or the file cannot be read.
pub fn events(pods: &Pods) -> Result<BTreeSet<Event>> {
    // Pods first: one that is removed meanwhile is in the file by then, or in both.
    let mut events: BTreeSet<_> = pods.all()?.iter().flat_map(of_pod).collect();
    let files = files(&pods.dir);
    for path in files.iter().rev() {
        match File::open(path) {
            Ok(file) => {
                let lines = BufReader::new(file).lines();
                // What was cut short is no event.
                events.extend(
                    lines
                        .map_while(io::Result::ok)
                        .filter_map(|line| serde_json::from_str(&line).ok()),
                );
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(events)
}

/// The files of removed pods' stories: the one that is written, and the one before.
pub fn files(pods: &Path) -> [PathBuf; 2] {
    ["events", "events.1"].map(|name| pods.join(name))
}

/// Keeps the story of a pod that is being removed.
///
/// # Errors
/// If it cannot be written.
pub(super) fn keep(pod: &Pod) -> Result<()> {
    let mut events = of_pod(pod);
    if events.is_empty() {
        return Ok(());
    }
    events.push(Event {
        time: nanoseconds_of(SystemTime::now()),
        event: Kind::Remove,
        pod: pod.uuid().to_owned(),
        app: None,
        exit_code: None,
    });
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, &event)?;
        lines.push(b'\n');
    }
    let [path, before] = files(pod.pods());
    let append = || -> io::Result<()> {
        if fs::metadata(&path).is_ok_and(|found| found.len() > MAX_BYTES) {
            fs::rename(&path, before)?;
        }
        let mut options = File::options();
        options
            .append(true)
            .create(true)
            .open(&path)?
            .write_all(&lines)
    };
    append().with_context(|| format!("write {}", path.display()))
}

/// What the pod's directory tells; nothing of one that only reads another's files, or is just being laid out.
fn of_pod(pod: &Pod) -> Vec<Event> {
    let Some(manifest) = pod
        .manifest()
        .ok()
        .filter(|_| pod.folder() != Folder::Embryo)
    else {
        return vec![];
    };
    let is_reader = |annotations| annotation::find(annotations, annotation::APP_BUILT_IN).is_some();
    if manifest.apps.iter().any(|app| is_reader(&app.annotations)) {
        return vec![];
    }
    let event = |time: Option<SystemTime>, event, app: Option<&str>, exit_code| {
        Some(Event {
            time: nanoseconds_of(time?),
            event,
            pod: pod.uuid().to_owned(),
            app: app.map(str::to_owned),
            exit_code,
        })
    };
    let mut events = vec![
        event(pod.created(), Kind::Create, None, None),
        event(pod.started(), Kind::Start, None, None),
    ];
    for app in &manifest.apps {
        let ended = Ended::of_app(pod.dir(), &app.name);
        events.extend(ended.map(|ended| {
            event(
                ended.written,
                Kind::Exit,
                Some(&app.name),
                Some(ended.exit_code),
            )
        }));
    }
    // What it leaves last; nothing tells of the moment in which it lets go of its lock.
    events.push(match Ended::of_pod(pod.dir()) {
        Some(ended) => event(ended.written, Kind::Died, None, Some(ended.exit_code)),
        None => event(modified(&pod.path().join(MARK)), Kind::Died, None, None),
    });
    events.into_iter().flatten().collect()
}

fn nanoseconds_of(time: SystemTime) -> u64 {
    u64::try_from(nanoseconds(time)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pods: &Pods) -> Vec<(&'static str, Option<String>, Option<i32>)> {
        let events = events(pods).expect("events");
        let told = events.into_iter();
        told.map(|event| (event.event.name(), event.app, event.exit_code))
            .collect()
    }

    #[test]
    fn story_of_a_pod_outlives_it() -> Result<()> {
        let data = tempfile::tempdir()?;
        let pods = Pods::open(data.path())?;
        let (mut pod, lock) = pods.create()?;
        assert_eq!(told(&pods), []);
        let manifest = r#"{"acVersion":"1","acKind":"PodManifest","apps":[{"name":"web","image":{"id":"sha512-0"}}]}"#;
        fs::write(pod.dir().manifest(), manifest)?;
        fs::write(pod.path().join("pod-created"), "")?;
        pod.move_to(Folder::Run, &lock)?;
        fs::write(pod.dir().pid(), "1\n")?;
        fs::create_dir_all(pod.dir().status())?;
        fs::write(pod.dir().app_status("web"), "7\n")?;
        let web = Some("web".to_owned());
        let lived = [
            ("create", None, None),
            ("start", None, None),
            ("exit", web, Some(7)),
        ];
        assert_eq!(told(&pods), lived);
        fs::write(pod.dir().exit_code(), "7\n")?;
        let ended = [&lived[..], &[("died", None, Some(7))]].concat();
        assert_eq!(told(&pods), ended);
        keep(&pod)?;
        let known = [&ended[..], &[("remove", None, None)]].concat();
        assert_eq!(told(&pods), known, "what is known twice is told once");
        fs::remove_dir_all(pod.path())?;
        assert_eq!(told(&pods), known);
        Ok(())
    }

    #[test]
    fn story_that_is_cut_short_or_long_is_read_as_far_as_it_goes() -> Result<()> {
        let data = tempfile::tempdir()?;
        let pods = Pods::open(data.path())?;
        let [path, before] = files(&pods.dir);
        let line = r#"{"time":1,"event":"create","pod":"p"}"#;
        fs::write(&before, format!("{line}\n"))?;
        fs::write(
            &path,
            format!("{}\n{{\"time\":3,\"ev", line.replace('1', "2")),
        )?;
        assert_eq!(events(&pods)?.len(), 2);
        Ok(())
    }
}

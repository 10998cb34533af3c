//! What is known of a pod from its files, for `list` and `status`; its JSON has the names of rkt's.

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use anyhow::Result;
use contract::PodManifest;
use contract::pod::PodApp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::ended::{Ended, Mark};
use super::{Pod, State};
use crate::times;

/// A pod as it was seen.
#[derive(Debug, Serialize)]
pub struct Report {
    /// UUID.
    pub name: String,
    /// In the words of the state table.
    pub state: String,
    /// `net-info.json` of stage 1, as it stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Value>,
    /// In the manifest's order.
    pub app_names: Vec<String>,
    /// By app name.
    pub apps: BTreeMap<String, AppReport>,
    /// Of the pod, once it has ended and where its stage 1 says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The host killed it because its cap on the pod's memory was reached.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// Nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<u128>,
    /// Nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u128>,
    /// Pid of the pod's process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip)]
    pub created: Option<SystemTime>,
    #[serde(skip)]
    pub started: Option<SystemTime>,
}

/// An app as it was seen.
#[derive(Debug, Serialize)]
pub struct AppReport {
    /// Name in the pod.
    pub name: String,
    /// `created`, `running`, `exited` or `unknown`.
    pub state: &'static str,
    /// Name of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// Id of the image.
    pub image_id: String,
    /// What `--label` has given it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub user_labels: Map<String, Value>,
    /// Once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<u128>,
}

impl Report {
    /// Reads what the pod's files say; a pod that is just being laid out has no apps yet.
    ///
    /// # Errors
    /// If the pod has gone.
    pub fn of(pod: &Pod) -> Result<Self> {
        let state = pod.state()?;
        let manifest = pod.manifest().ok();
        let mutable = manifest.as_ref().is_some_and(PodManifest::is_mutable);
        let apps = manifest.map(|manifest| manifest.apps).unwrap_or_default();
        let apps = apps.into_iter();
        let apps: Vec<_> = apps
            .map(|app| AppReport::of(pod, state, mutable, app))
            .collect();
        let (created, started) = (pod.created(), pod.started());
        Ok(Self {
            name: pod.uuid().to_owned(),
            state: state.to_string(),
            networks: networks(pod),
            app_names: apps.iter().map(|app| app.name.clone()).collect(),
            apps: apps
                .into_iter()
                .map(|app| (app.name.clone(), app))
                .collect(),
            exit_code: Ended::of_pod(pod.dir())
                .filter(|_| state.has_ended())
                .map(|ended| ended.exit_code),
            out_of_memory: pod.dir().out_of_memory().exists(),
            created_at: created.map(times::nanoseconds),
            started_at: started.map(times::nanoseconds),
            pid: (state == State::Running).then(|| pod.pid()).flatten(),
            created,
            started,
        })
    }

    /// The pod's exit code, once it has ended: where its stage 1 leaves none, that of the first app that failed; `None` where an
    /// app has none.
    pub fn exit_code(&self) -> Option<i32> {
        if self.exit_code.is_some() {
            return self.exit_code;
        }
        let mut ended: Vec<_> = self
            .apps
            .values()
            .map(|app| Some((app.finished_at, app.exit_code?)))
            .collect::<Option<_>>()?;
        ended.sort_unstable();
        let failed = ended.iter().map(|(_, code)| *code).find(|code| *code != 0);
        Some(failed.unwrap_or(0))
    }

    /// `name:ip4=address` of each network, or `ip6` of one without such an address.
    pub fn network_names(&self) -> String {
        let names: Vec<_> = self
            .networks
            .iter()
            .filter_map(|network| {
                let name = network.get("netName")?.as_str()?;
                let ip = network.get("ip")?.as_str()?;
                let ip6 = network.get("ip6").and_then(Value::as_str);
                Some(match (ip, ip6) {
                    ("", None) => name.to_owned(),
                    ("", Some(ip6)) => format!("{name}:ip6={ip6}"),
                    (ip, _) => format!("{name}:ip4={ip}"),
                })
            })
            .collect();
        names.join(", ")
    }
}

impl AppReport {
    fn of(pod: &Pod, state: State, mutable: bool, app: PodApp) -> Self {
        let has = |mark: Mark| !mutable || mark.is_on(pod.dir(), &app.name);
        let status = Ended::of_app(pod.dir(), &app.name);
        let exit_code = status.as_ref().map(|status| status.exit_code);
        Self {
            state: match (exit_code, state) {
                (Some(_), _) => "exited",
                // Only half added, or half removed.
                (None, State::Running) if !has(Mark::Created) => "unknown",
                (None, State::Running) if !has(Mark::Started) => "created",
                (None, State::Running) => "running",
                (None, _) if state.has_ended() => "exited",
                (None, _) => "unknown",
            },
            finished_at: status
                .and_then(|status| status.written)
                .map(times::nanoseconds),
            exit_code,
            user_labels: app.app.and_then(|app| app.user_labels).unwrap_or_default(),
            name: app.name,
            image_name: app.image.name,
            image_id: app.image.id,
        }
    }
}

fn networks(pod: &Pod) -> Vec<Value> {
    fs::read(pod.path().join("net-info.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

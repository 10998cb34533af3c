//! `fairing list`: one line for each app of each pod.

use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::Args;

use super::Context;
use crate::pods::Report;
use crate::table::TableFlags;
use crate::times;

/// Lists pods
#[derive(Debug, Args)]
pub struct List {
    /// Whole UUIDs and exact times
    #[arg(long)]
    pub full: bool,
    /// Only pods of which this is true: label=NAME[=VALUE] or name=APP of an app, state=STATE; of several, all
    #[arg(long, short = 'f', value_name = "WHAT=VALUE", value_parser = parse_filter)]
    pub filter: Vec<Filter>,
    #[command(flatten)]
    pub table: TableFlags,
}

/// What must be true of a pod that is listed.
#[derive(Clone, Debug)]
pub enum Filter {
    Label(String, Option<String>),
    Name(String),
    State(String),
}

impl Filter {
    fn takes(&self, report: &Report) -> bool {
        match self {
            Self::Label(name, value) => report.apps.values().any(|app| {
                let label = app.user_labels.get(name).and_then(|label| label.as_str());
                label.is_some_and(|label| value.as_ref().is_none_or(|value| value == label))
            }),
            Self::Name(name) => report.apps.contains_key(name),
            Self::State(state) => report.state == *state,
        }
    }
}

fn parse_filter(text: &str) -> Result<Filter> {
    let (what, value) = text.split_once('=').unwrap_or((text, ""));
    Ok(match what {
        "label" => match value.split_once('=') {
            Some((name, value)) => Filter::Label(name.to_owned(), Some(value.to_owned())),
            None => Filter::Label(value.to_owned(), None),
        },
        "name" => Filter::Name(value.to_owned()),
        "state" | "status" => Filter::State(value.to_owned()),
        _ => bail!("there is no filter {what:?}; label, name and state are"),
    })
}

impl List {
    /// Prints the list.
    ///
    /// # Errors
    /// If the pods cannot be read.
    pub fn run(self, context: &Context) -> Result<i32> {
        // A pod may go while it is looked at.
        let mut reports: Vec<_> = context
            .pods
            .all()?
            .iter()
            .filter_map(|pod| Report::of(pod).ok())
            .filter(|report| self.filter.iter().all(|filter| filter.takes(report)))
            .collect();
        reports.sort_by_key(|report| (report.created, report.name.clone()));
        let titles = [
            "UUID",
            "APP",
            "IMAGE NAME",
            "STATE",
            "CREATED",
            "STARTED",
            "NETWORKS",
        ];
        let rows = reports.iter().flat_map(|report| self.rows(report));
        self.table
            .print(&reports, titles.map(str::to_owned), rows)?;
        Ok(0)
    }

    /// The first app's row tells of the pod, the others leave that out.
    fn rows(&self, report: &Report) -> Vec<[String; 7]> {
        let now = SystemTime::now();
        let time = |time: Option<SystemTime>| match time {
            Some(time) if self.full => times::utc(time),
            Some(time) => times::ago(time, now),
            None => String::new(),
        };
        let mut pod = [
            if self.full {
                report.name.clone()
            } else {
                report.name[..8].to_owned()
            },
            "-".to_owned(),
            "-".to_owned(),
            report.state.clone(),
            time(report.created),
            time(report.started),
            report.network_names(),
        ];
        let mut rows = Vec::new();
        for name in &report.app_names {
            pod[1].clone_from(name);
            pod[2] = report
                .apps
                .get(name)
                .and_then(|app| app.image_name.clone())
                .unwrap_or_default();
            rows.push(std::mem::take(&mut pod));
        }
        if rows.is_empty() {
            rows.push(pod);
        }
        rows
    }
}

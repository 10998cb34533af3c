//! `fairing app list` and `app status`.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::cli::Format;
use crate::commands::Context;
use crate::pods::{AppReport, Report};
use crate::table::TableFlags;

/// Lists the apps of a pod
#[derive(Debug, Args)]
pub struct List {
    /// The pod; a unique beginning is enough
    pub uuid: String,
    #[command(flatten)]
    pub table: TableFlags,
}

impl List {
    /// Prints the list.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn run(self, context: &Context) -> Result<i32> {
        let apps = apps(&self.uuid, context)?;
        let rows = apps
            .iter()
            .map(|app| [app.name.clone(), app.state.to_owned()]);
        let titles = ["NAME", "STATE"].map(str::to_owned);
        self.table.print(&apps, titles, rows)?;
        Ok(0)
    }
}

/// Tells the state of one app of a pod
#[derive(Debug, Args)]
pub struct Status {
    /// The pod; a unique beginning is enough
    pub uuid: String,
    /// The app
    #[arg(long, value_name = "NAME")]
    pub app: String,
    /// As JSON: json, or json-pretty to read
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: Option<Format>,
}

impl Status {
    /// Prints it.
    ///
    /// # Errors
    /// If there is no such app.
    pub fn run(self, context: &Context) -> Result<i32> {
        let mut apps = apps(&self.uuid, context)?.into_iter();
        let app = apps.find(|app| app.name == self.app);
        let app = app.with_context(|| format!("pod {} has no app {}", self.uuid, self.app))?;
        if let Some(format) = self.format {
            format.print(&app)?;
            return Ok(0);
        }
        crate::print_line(&format!("name={}", app.name))?;
        crate::print_line(&format!("state={}", app.state))?;
        crate::print_line(&format!("image_id={}", app.image_id))?;
        if let Some(code) = app.exit_code {
            crate::print_line(&format!("exit_code={code}"))?;
        }
        Ok(0)
    }
}

/// In the manifest's order.
fn apps(uuid: &str, context: &Context) -> Result<Vec<AppReport>> {
    let mut report = Report::of(&context.pods.find(uuid)?)?;
    let names = report.app_names.iter();
    Ok(names.filter_map(|name| report.apps.remove(name)).collect())
}

//! `fairing app start`, `stop` and `rm`.

use anyhow::Result;
use clap::Args;

use crate::apps::Apps;
use crate::commands::Context;

/// An app of a running pod.
#[derive(Debug, Args)]
pub struct Chosen {
    /// The pod; a unique beginning is enough
    pub uuid: String,
    /// The app
    #[arg(long, value_name = "NAME")]
    pub app: String,
}

impl Chosen {
    fn change(&self, context: &Context, change: impl Fn(&Apps, &str) -> Result<()>) -> Result<i32> {
        let pod = context.pods.find(&self.uuid)?;
        change(&Apps::of(pod, context.settings.debug)?, &self.app)?;
        Ok(0)
    }
}

/// Starts an app that was added, or has ended
#[derive(Debug, Args)]
pub struct Start {
    #[command(flatten)]
    pub chosen: Chosen,
}

impl Start {
    /// Starts it; returns when it runs.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(self, context: &Context) -> Result<i32> {
        self.chosen.change(context, Apps::start)
    }
}

/// Stops an app, as `fairing stop` does a whole pod
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    pub chosen: Chosen,
}

impl Stop {
    /// Stops it; returns when it has ended.
    ///
    /// # Errors
    /// If it does not run.
    pub fn run(self, context: &Context) -> Result<i32> {
        self.chosen.change(context, Apps::stop)
    }
}

/// Removes an app with its files and logs; one that runs is stopped first
#[derive(Debug, Args)]
pub struct Rm {
    #[command(flatten)]
    pub chosen: Chosen,
}

impl Rm {
    /// Removes it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn run(self, context: &Context) -> Result<i32> {
        self.chosen.change(context, Apps::remove)
    }
}

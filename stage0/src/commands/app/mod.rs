//! `fairing app`: a pod that begins without apps, and apps that come and go while it runs. Named as rkt's.

mod add;
mod change;
mod look;
mod sandbox;

use anyhow::Result;
use clap::Subcommand;

use super::{Context, enter};

/// Adds apps to a running pod, starts, stops and removes them
#[derive(Debug, Subcommand)]
pub enum App {
    Sandbox(Box<sandbox::Sandbox>),
    Add(Box<add::Add>),
    Start(change::Start),
    Stop(change::Stop),
    Rm(change::Rm),
    List(look::List),
    Status(look::Status),
    /// Executes a command inside an app, as `enter` does
    Exec(enter::Enter),
}

impl App {
    /// Runs the command.
    ///
    /// # Errors
    /// The command's.
    pub fn run(self, context: &Context) -> Result<i32> {
        match self {
            Self::Sandbox(command) => command.run(context),
            Self::Add(command) => command.run(context),
            Self::Start(command) => command.run(context),
            Self::Stop(command) => command.run(context),
            Self::Rm(command) => command.run(context),
            Self::List(command) => command.run(context),
            Self::Status(command) => command.run(context),
            Self::Exec(command) => command.run(context),
        }
    }
}

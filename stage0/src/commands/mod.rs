//! The commands, one file each.

pub mod app;
pub mod attach;
pub mod cat_manifest;
mod chosen;
pub mod commit;
pub mod completion;
pub mod cp;
pub mod doctor;
pub mod enter;
pub mod events;
pub mod export;
pub mod gc;
pub mod image;
pub mod inspect;
pub mod kill;
pub mod list;
pub mod logs;
pub mod man;
pub mod prepare;
pub mod rm;
pub mod run;
pub mod run_prepared;
pub mod stats;
pub mod status;
pub mod stop;
pub mod top;
pub mod trust;
mod version;
pub mod wait;

use anyhow::Result;

use crate::cli::{AppWords, Cli, Command};
use crate::pods::{Pods, sweep};
use crate::settings::Settings;

/// What every command that works on pods is given.
pub struct Context {
    /// Global flags and configuration.
    pub settings: Settings,
    /// The pods of the data directory.
    pub pods: Pods,
}

/// Runs one command and returns its exit code.
///
/// # Errors
/// The command's.
pub fn run(cli: Cli, apps: &[AppWords]) -> Result<i32> {
    let settings = Settings::new(&cli.global)?;
    match cli.command {
        Command::Version => version::run(),
        Command::Doctor(command) => command.run(&settings),
        Command::Completion(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Trust(command) => command.run(&settings),
        command => {
            let pods = Pods::open(&settings.dir)?;
            let looks = matches!(
                command,
                Command::Wait(_)
                    | Command::Logs(_)
                    | Command::Status(_)
                    | Command::Inspect(_)
                    | Command::Stats(_)
                    | Command::Events(_)
            );
            sweep(&pods, &settings, looks)?;
            run_on_pods(command, apps, &Context { settings, pods })
        }
    }
}

fn run_on_pods(command: Command, apps: &[AppWords], context: &Context) -> Result<i32> {
    match command {
        Command::Run(command) => command.run(apps, context),
        Command::Prepare(command) => command.run(apps, context),
        Command::RunPrepared(command) => command.run(context),
        Command::List(command) => command.run(context),
        Command::Status(command) => command.run(context),
        Command::Logs(command) => command.run(context),
        Command::Stop(command) => command.run(context),
        Command::Kill(command) => command.run(context),
        Command::Wait(command) => command.run(context),
        Command::Enter(command) => command.run(context),
        Command::Rm(command) => command.run(context),
        Command::Gc(command) => command.run(context),
        Command::CatManifest(command) => command.run(context),
        Command::Inspect(command) => command.run(context),
        Command::Stats(command) => command.run(context),
        Command::Export(command) => command.run(context),
        Command::Commit(command) => command.run(context),
        Command::Cp(command) => command.run(context),
        Command::Events(command) => command.run(context),
        Command::Top(command) => command.run(context),
        Command::App(command) => command.run(context),
        Command::Attach(command) => command.run(context),
        Command::Image(command) => command.run(context),
        Command::Version
        | Command::Doctor(_)
        | Command::Completion(_)
        | Command::Man(_)
        | Command::Trust(_) => Ok(0),
    }
}

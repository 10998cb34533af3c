//! From a fresh child of PID 1 to a program's first instruction, in an app's place: the list of steps, in that process.
//!
//! Started by `Task`. Whatever fails is told to PID 1, and the process exits.

use std::convert::Infallible;
use std::ffi::CString;

use anyhow::{Context, Result};
use guest_init::protocol::{App, Entry};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, execve};

use crate::command::{candidates, run_first};
use crate::fault::Fault;
use crate::furnish;
use crate::place::Place;
use crate::report::Reporter;
use crate::stdio::{self, TheirStdio, Use};
use crate::{built_in, privileges, process};

/// All that the process needs.
pub struct Launch<'a> {
    /// Where.
    pub place: &'a Place,
    /// What.
    pub program: Program<'a>,
    /// The task's stdio.
    pub stdio: TheirStdio<'a>,
    /// The line to PID 1.
    pub reporter: &'a Reporter,
}

/// What runs.
pub struct Program<'a> {
    exec: &'a [String],
    environment: Vec<(&'a str, &'a str)>,
    working_directory: &'a str,
    user: Option<&'a str>,
    built_in: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    App,
    Handler,
    Entry,
}

impl<'a> Program<'a> {
    /// The app itself.
    pub fn of_app(app: &'a App) -> Self {
        Self {
            exec: &app.exec,
            environment: pairs(&app.environment).collect(),
            working_directory: &app.working_directory,
            user: None,
            built_in: app.built_in,
            kind: Kind::App,
        }
    }

    /// One of the app's handlers, which do not read its input.
    pub fn of_handler(app: &'a App, exec: &'a [String]) -> Self {
        Self {
            exec,
            kind: Kind::Handler,
            ..Self::of_app(app)
        }
    }

    /// A command that enters `app`.
    pub fn of_entry(entry: &'a Entry, app: &'a App) -> Self {
        let own: Vec<_> = pairs(&entry.environment).collect();
        let is_own = |name| own.iter().any(|(known, _)| *known == name);
        let inherited = pairs(&app.environment).filter(|(name, _)| !is_own(*name));
        Self {
            exec: &entry.exec,
            environment: inherited.chain(own.iter().copied()).collect(),
            working_directory: entry
                .working_directory
                .as_deref()
                .unwrap_or(&app.working_directory),
            user: entry.user.as_deref(),
            built_in: entry.built_in,
            kind: Kind::Entry,
        }
    }
}

fn pairs(environment: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

impl Launch<'_> {
    /// Becomes the program, or exits.
    pub fn run(&self) -> ! {
        let Err(fault) = self.try_run();
        self.reporter.failed(&fault);
        std::process::exit(i32::from(fault.code))
    }

    fn try_run(&self) -> Result<Infallible, Fault> {
        let app = &*self.place.app;
        let program = &self.program;
        process::reset_signals().context("reset the signals")?;
        self.place.enter()?;
        if program.built_in {
            built_in::run(program.exec, &self.stdio, self.reporter)?;
            std::process::exit(0)
        }
        let account = match program.user {
            None => self.place.room.account.clone(),
            Some(user) => furnish::resolve(user, user, &[])?,
        };
        let path = program.working_directory;
        chdir(path).with_context(|| format!("enter working directory {path}"))?;
        let used = match program.kind {
            Kind::App | Kind::Entry => Use::Whole,
            Kind::Handler => Use::Output,
        };
        stdio::take(&self.stdio, used, &account, self.reporter)?;
        if program.kind == Kind::App {
            stdio::make_console(&self.stdio)?;
        }
        umask(Mode::from_bits_truncate(0o022));
        privileges::limit(&app.resource_limits)?;
        privileges::drop_to(&account, &app.powers)?;
        Err(self.execute(&app.search_path)?)
    }

    /// Returns only if the command cannot be executed.
    fn execute(&self, search_path: &str) -> Result<Fault> {
        let text = |text: &str| CString::new(text).with_context(|| format!("{text:?} has a NUL"));
        let program = &self.program;
        let command = program.exec.first().context("no command")?;
        let arguments = program
            .exec
            .iter()
            .map(|argument| text(argument))
            .collect::<Result<Vec<_>>>()?;
        let environment = program
            .environment
            .iter()
            .map(|(name, value)| text(&format!("{name}={value}")))
            .collect::<Result<Vec<_>>>()?;
        let candidates = candidates(command, search_path, program.working_directory);
        Ok(run_first(
            command,
            &candidates,
            |candidate| match CString::new(candidate) {
                Ok(candidate) => match execve(&candidate, &arguments, &environment) {
                    Err(error) => error,
                },
                Err(_) => nix::errno::Errno::ENOENT,
            },
        ))
    }
}

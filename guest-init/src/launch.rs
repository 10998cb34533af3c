//! From a fresh child of PID 1 to a program's first instruction, in an app's place: the list of steps, in that process.
//!
//! Started by `Task`.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use guest_init::protocol::Entry;
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, execve};

use crate::command::{candidates, run_first};
use crate::fault::Fault;
use crate::furnish;
use crate::place::Place;
use crate::stdio::{self, Kind, TheirStdio};
use crate::{built_in, privileges, process};

/// What runs.
pub struct Program<'a> {
    place: &'a Place,
    exec: &'a [String],
    environment: Vec<(&'a str, &'a str)>,
    working_directory: &'a str,
    user: Option<&'a str>,
    built_in: bool,
    kind: Kind,
}

impl<'a> Program<'a> {
    /// The app itself.
    pub fn of_app(place: &'a Place) -> Self {
        let app = &place.app;
        Self {
            place,
            exec: &app.exec,
            environment: pairs(&app.environment).collect(),
            working_directory: &app.working_directory,
            user: None,
            built_in: app.built_in,
            kind: Kind::App,
        }
    }

    /// One of the app's handlers, which do not read its input.
    pub fn of_handler(place: &'a Place, exec: &'a [String]) -> Self {
        Self {
            exec,
            kind: Kind::Handler,
            ..Self::of_app(place)
        }
    }

    /// A command that enters the app.
    pub fn of_entry(entry: &'a Entry, place: &'a Place) -> Self {
        let app = &place.app;
        let own: Vec<_> = pairs(&entry.environment).collect();
        let is_own = |name| own.iter().any(|(known, _)| *known == name);
        let inherited = pairs(&app.environment).filter(|(name, _)| !is_own(*name));
        Self {
            place,
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

impl Program<'_> {
    /// Makes the calling process, a child of PID 1, the program; returns when a built-in one has run, or with what is in the way.
    pub fn launch(&self, stdio: &TheirStdio, line: &OwnedFd) -> Result<(), Fault> {
        process::reset_signals().context("reset the signals")?;
        let app = &self.place.app;
        let room = self.place.enter()?;
        if self.built_in {
            return Ok(built_in::run(self.exec, stdio, line)?);
        }
        let account = match self.user {
            None => room.account.clone(),
            Some(user) => furnish::resolve(user, user, &[])?,
        };
        let path = self.working_directory;
        chdir(path).with_context(|| format!("enter working directory {path}"))?;
        stdio::take(stdio, self.kind, &account, line)?;
        umask(Mode::from_bits_truncate(0o022));
        privileges::limit(&app.resource_limits)?;
        privileges::drop_to(&account, &app.powers)?;
        Err(self.execute(&app.search_path)?)
    }

    /// Returns only if the command cannot be executed.
    fn execute(&self, search_path: &str) -> Result<Fault> {
        let text = |text: &str| CString::new(text).with_context(|| format!("{text:?} has a NUL"));
        let command = self.exec.first().context("no command")?;
        let arguments = self.exec.iter().map(|argument| text(argument));
        let arguments: Vec<_> = arguments.collect::<Result<_>>()?;
        let environment = self.environment.iter();
        let environment = environment.map(|(name, value)| text(&format!("{name}={value}")));
        let environment: Vec<_> = environment.collect::<Result<_>>()?;
        let execute = |candidate: &str| {
            let path = CString::new(candidate).map_err(|_| Errno::ENOENT);
            let Err(error) = path.and_then(|path| execve(&path, &arguments, &environment));
            error
        };
        let candidates = candidates(command, search_path, self.working_directory);
        Ok(run_first(command, &candidates, execute))
    }
}

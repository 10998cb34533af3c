//! The `enter` entrypoint: runs a command inside an app of a running pod, on this process's stdio; its exit code is the
//! command's. The `serve` entrypoint does so with a program of the machine's own, never on a terminal. The working directory is the
//! pod directory.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use contract::PodDir;
use guest_init::protocol::{Entry, FIRST_STREAM_PORT};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use vmm::event::descriptor;
use vmm_sys_util::eventfd::EventFd;

use crate::clients::{Caller, Request};
use crate::streams::{self, Ports, Pumps, Sharing};
use crate::terminal::{self, Raw};
use crate::{plan, session, waits};

/// Runs the command that `argv` names: `--pid=PID --appname=NAME -- COMMAND ARGUMENT...`; rkt's own programs say `--app=NAME`.
///
/// # Errors
/// When the pod does not run, or the command cannot be launched for a reason of ours.
pub fn enter(built_in: bool, argv: impl Iterator<Item = String>) -> Result<u8> {
    let (app, exec) = parse(argv)?;
    let signals = session::block_signals()?;
    let pod = Caller::come(&PodDir::new(".").socket())?;
    let window = terminal::window().filter(|_| !built_in);
    let stdio = plan::entry_stdio(FIRST_STREAM_PORT, window);
    let ports = Ports::default();
    let drained = streams::drained_event()?;
    let pumps = Pumps::start(stdio, &ports, &Sharing::of_caller(&drained))?;
    let theirs = plan::ports_of(stdio)
        .into_iter()
        .map(|port| ports.take(port));
    let streams: Option<Vec<_>> = theirs.collect();
    let streams = streams.context("make the command's streams")?;
    let term = window.and_then(|_| std::env::var("TERM").ok());
    let request = Request::Enter(Box::new(Entry {
        app,
        built_in,
        exec,
        // As rkt's: whoever may enter a pod is its administrator.
        user: Some("root".into()),
        environment: term.map(|term| ("TERM".into(), term)).into_iter().collect(),
        working_directory: None,
        stdio,
    }));
    let descriptors: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
    pod.ask(&request, &descriptors)?;
    drop(streams);
    let _raw = window.map(|_| Raw::enter()).transpose()?;
    let mut visit = Visit {
        pod: &pod,
        signals,
        drained,
        pumps,
    };
    let code = visit.follow()?;
    visit.wait_for_outputs()?;
    Ok(code)
}

fn parse(argv: impl Iterator<Item = String>) -> Result<(String, Vec<String>)> {
    let mut argv = argv;
    let mut app = None;
    for argument in argv.by_ref() {
        match argument.split_once('=') {
            _ if argument == "--" => break,
            Some(("--appname" | "--app", name)) => app = Some(name.to_owned()),
            // There is one process to ask, and it is found by its socket.
            Some(("--pid", _)) => {}
            _ => bail!("unknown argument {argument:?}"),
        }
    }
    let app = app.context(
        "no --appname: the machine itself has no programs to run; name an app of the pod",
    )?;
    let exec: Vec<_> = argv.collect();
    if exec.is_empty() {
        bail!("no command given after --");
    }
    Ok((app, exec))
}

/// A command under way.
struct Visit<'a> {
    pod: &'a Caller,
    signals: SignalFd,
    drained: EventFd,
    pumps: Pumps,
}

impl Visit<'_> {
    /// Passes signals on until the command has ended; gives its code.
    fn follow(&mut self) -> Result<u8> {
        loop {
            self.wait(&[self.pod.as_fd(), self.signals.as_fd()])?;
            while let Some(info) = self.signals.read_signal().context("read a signal")? {
                let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
                self.pass_on(signal)?;
            }
            if let Some(code) = self.pod.look_for_end()? {
                return Ok(code);
            }
        }
    }

    fn pass_on(&self, signal: i32) -> Result<()> {
        let request = match (signal, terminal::window()) {
            (winch, Some(window)) if winch == Signal::SIGWINCH as i32 => Request::Resize(window),
            (winch, None) if winch == Signal::SIGWINCH as i32 => return Ok(()),
            (signal, _) => Request::Signal(signal),
        };
        self.pod.ask(&request, &[]).context("pass a signal on")
    }

    /// Until every byte has been written, or nobody reads it.
    fn wait_for_outputs(&self) -> Result<()> {
        while !self.pumps.drained() {
            self.wait(&[descriptor(&self.drained)])?;
            self.drained
                .read()
                .context("read the event of ended outputs")?;
        }
        Ok(())
    }

    fn wait(&self, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let mut waits: Vec<_> = descriptors
            .iter()
            .map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN))
            .collect();
        waits::wait(&mut waits, None, "the command")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(String, Vec<String>)> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn parse_both_spellings_and_leaves_the_commands_own_flags_alone() {
        let (app, exec) = parsed("--pid=7 --appname=web -- ls --app=x").expect("valid");
        assert_eq!((app.as_str(), exec.join(" ")), ("web", "ls --app=x".into()));
        assert_eq!(parsed("--pid=7 --app=a -- b").expect("valid").0, "a");
        for wrong in ["--pid=7 -- ls", "--appname=a --", "--appname=a ls"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}

//! This process's stdio at a task of a running pod, until that has ended: what the `enter` and `attach` entrypoints share.

use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use guest_init::protocol::Stdio;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use vmm::event::descriptor;
use vmm_sys_util::eventfd::EventFd;

use crate::clients::{Caller, Request};
use crate::life::FAILED;
use crate::streams::{self, Input, Ports, Pumps, Sharing};
use crate::terminal::{self, Raw};
use crate::{plan, session, waits};

/// Somebody at a command that is his, or at an app, which is not.
pub struct Visit {
    pod: Caller,
    pumps: Pumps,
    /// Signalled when an output has ended, or the user leaves by his keys.
    changed: Arc<EventFd>,
    signals: SignalFd,
    /// Whether it is a command, whose signals are the visitor's to give.
    is_command: bool,
    /// The user's terminal, where the task has one, too.
    raw: Option<Raw>,
}

impl Visit {
    /// Makes `request`, with streams for `stdio` beside it. On a terminal that is an app's, there are keys by which its user leaves.
    ///
    /// # Errors
    /// When the pod has ended, or descriptors or threads are short.
    pub fn begin(pod: Caller, request: &Request, stdio: Stdio, on_terminal: bool) -> Result<Self> {
        let signals = session::block_signals()?;
        let is_command = matches!(request, Request::Enter(_));
        let ports = Ports::default();
        let changed = streams::drained_event()?;
        let sharing = Sharing {
            drained: Arc::clone(&changed),
            confine: || Ok(()),
            label: None,
            log: None,
            input: match on_terminal && !is_command {
                true => Input::OwnWithKeys,
                false => Input::Own,
            },
        };
        let pumps = Pumps::start(stdio, &ports, &sharing)?;
        let theirs = plan::ports_of(stdio)
            .into_iter()
            .map(|port| ports.take(port));
        let theirs: Option<Vec<_>> = theirs.collect();
        let theirs = theirs.context("make the task's streams")?;
        let beside: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        pod.ask(request, &beside)?;
        Ok(Self {
            pod,
            pumps,
            changed,
            signals,
            is_command,
            raw: on_terminal.then(Raw::enter).transpose()?,
        })
    }

    /// Until the task has ended, and every byte is written or nobody reads it, or the user leaves; gives the code to exit with: the
    /// task's, or 0 for a user who leaves by his keys.
    ///
    /// # Errors
    /// When the pod refuses the request.
    pub fn follow(self) -> Result<u8> {
        let mut code = None;
        loop {
            let mut sources = vec![descriptor(&self.changed), self.signals.as_fd()];
            sources.extend(code.is_none().then_some(self.pod.as_fd()));
            let sources = sources.into_iter().map(|fd| ((), fd, PollFlags::POLLIN));
            waits::wait(sources.collect(), None, "the task")?;
            // What it told of is looked for below.
            let _ = self.changed.read();
            if let Some(code) = self.heed_signals(code.is_some())? {
                return Ok(code);
            }
            if self.pumps.user_has_left() {
                return Ok(0);
            }
            if code.is_none() {
                code = self.pod.look_for_end()?;
            }
            if let Some(code) = code.filter(|_| self.pumps.drained()) {
                return Ok(code);
            }
        }
    }

    /// Passes on a new size of the terminal, and to a command, unless it has ended, any other signal. At an app that is for this
    /// visit alone, which it ends with this code.
    fn heed_signals(&self, has_ended: bool) -> Result<Option<u8>> {
        while let Some(info) = self.signals.read_signal().context("read a signal")? {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
            if signal == Signal::SIGWINCH as i32 {
                // A pod that has let go has said why.
                if let Some(window) = terminal::window().filter(|_| self.raw.is_some()) {
                    let _ = self.pod.ask(&Request::Resize(window), &[]);
                }
            } else if !self.is_command {
                return Ok(Some(u8::try_from(signal + 128).unwrap_or(FAILED)));
            } else if !has_ended {
                let _ = self.pod.ask(&Request::Signal(signal), &[]);
            }
        }
        Ok(None)
    }
}

//! An app as PID 1 sees it: its first process, its pumps, and what the host is to be told next.
//!
//! Owned by `Supervisor`. Its life: launching, then running, then draining, then gone; or refused, then gone.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, ensure};
use guest_init::protocol::{self, Status, ToHost, Window};
use nix::poll::PollFlags;
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::fault::Fault;
use crate::launch::Launch;
use crate::process;
use crate::pump::Pump;
use crate::report::{self, Report, Reports};
use crate::streams::{Streams, Terminal};

/// An app.
pub struct App {
    name: String,
    pid: Pid,
    cgroup: Cgroup,
    life: Life,
    input: Option<Pump>,
    outputs: Vec<Pump>,
    terminal: Option<Terminal>,
}

enum Life {
    Launching(Reports),
    Running,
    Draining(Status),
    Gone,
}

/// What an event was on.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The line of a launch.
    Launch,
    /// The source of the input (`None`) or of an output.
    Source(Option<usize>),
    /// The sink, likewise.
    Sink(Option<usize>),
}

impl App {
    /// Connects the app's streams and starts its process.
    ///
    /// # Errors
    /// Whatever goes wrong before the process is there.
    pub fn start(app: &protocol::App) -> Result<Self> {
        ensure!(is_name(&app.name), "{:?} is no name for an app", app.name);
        let Streams {
            theirs,
            input,
            outputs,
            terminal,
        } = Streams::connect(&app.stdio)?;
        let cgroup = Cgroup::make(app)?;
        let (reports, reporter) = report::line()?;
        let launch = Launch {
            app,
            cgroup: &cgroup,
            stdio: &theirs,
            reporter: &reporter,
        };
        let Some(pid) = process::split().context("start a process")? else {
            launch.run()
        };
        Ok(Self {
            name: app.name.clone(),
            pid,
            cgroup,
            life: Life::Launching(reports),
            input,
            outputs,
            terminal,
        })
    }

    /// Whether `name` is this app's, and it has not ended.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name && !matches!(self.life, Life::Gone)
    }

    /// Whether its first process is `pid`, alive until now.
    pub fn is_process(&self, pid: Pid) -> bool {
        self.pid == pid && matches!(self.life, Life::Launching(_) | Life::Running)
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        matches!(self.life, Life::Gone)
            && self.input.is_none()
            && self.outputs.iter().all(Pump::is_closed)
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: i32) {
        if matches!(self.life, Life::Launching(_) | Life::Running) {
            // The kernel knows the numbers; one that it refuses has no effect.
            let _ = process::kill(self.pid, signal);
        }
    }

    /// Kills all its processes.
    pub fn kill(&self) {
        self.cgroup.kill();
    }

    /// Gives its terminal, if it has one, a new size.
    pub fn resize(&self, window: Window) {
        if let Some(terminal) = &self.terminal {
            terminal.resize(window);
        }
    }

    /// What to wait for.
    pub fn poll(&self) -> Vec<(Part, BorrowedFd<'_>, PollFlags)> {
        let mut waits = Vec::new();
        if let Life::Launching(reports) = &self.life {
            waits.push((Part::Launch, reports.as_fd(), PollFlags::POLLIN));
        }
        let outputs = self
            .outputs
            .iter()
            .enumerate()
            .map(|(index, pump)| (Some(index), pump));
        for (index, pump) in outputs.chain(self.input.iter().map(|pump| (None, pump))) {
            waits.extend(
                pump.poll_source()
                    .map(|(descriptor, events)| (Part::Source(index), descriptor, events)),
            );
            waits.extend(
                pump.poll_sink()
                    .map(|(descriptor, events)| (Part::Sink(index), descriptor, events)),
            );
        }
        waits
    }

    /// Answers an event; gives what the host is to be told.
    pub fn event(&mut self, part: Part, events: Option<PollFlags>) -> Option<ToHost> {
        match part {
            Part::Launch => return self.hear_of_launch(),
            Part::Source(pump) => self.pump(pump)?.step(),
            Part::Sink(pump) => self.pump(pump)?.sink_event(events),
        }
        None
    }

    fn pump(&mut self, index: Option<usize>) -> Option<&mut Pump> {
        match index {
            Some(index) => self.outputs.get_mut(index),
            None => self.input.as_mut(),
        }
    }

    /// Hears the line of the launch out.
    fn hear_of_launch(&mut self) -> Option<ToHost> {
        loop {
            let Life::Launching(reports) = &self.life else {
                return None;
            };
            match reports.next() {
                Report::Nothing => return None,
                Report::Terminal(master) => self.take_terminal(master),
                Report::Failed(Fault { code, reason }) => {
                    self.end();
                    return Some(ToHost::NotStarted {
                        app: self.name.clone(),
                        code,
                        reason,
                    });
                }
                Report::Started => {
                    self.life = Life::Running;
                    return Some(ToHost::Started {
                        app: self.name.clone(),
                    });
                }
            }
        }
    }

    /// A terminal without pumps is lost to the app alone: its session ends when it is closed here.
    fn take_terminal(&mut self, master: File) {
        let pumps = self
            .terminal
            .as_mut()
            .and_then(|terminal| terminal.take(master).ok());
        if let Some((input, output)) = pumps {
            (self.input, self.outputs) = (Some(input), vec![output]);
        }
    }

    /// Its first process has died: the rest is killed, and what was written is taken along. Gives what came before.
    pub fn died(&mut self, status: Status) -> Option<ToHost> {
        let before = self.hear_of_launch();
        if matches!(self.life, Life::Running) {
            self.cgroup.kill();
            self.life = Life::Draining(status);
            self.input = None;
            self.terminal = None;
            self.outputs.iter_mut().for_each(Pump::take_last_words);
        }
        before
    }

    /// Tells of the end once every byte has been handed on.
    pub fn settle(&mut self) -> Option<ToHost> {
        self.input.take_if(|pump| pump.is_closed());
        let Life::Draining(status) = self.life else {
            return None;
        };
        if !self.outputs.iter().all(Pump::is_delivered) {
            return None;
        }
        self.end();
        Some(ToHost::Exited {
            app: self.name.clone(),
            status,
        })
    }

    fn end(&mut self) {
        self.life = Life::Gone;
        (self.input, self.terminal) = (None, None);
        self.outputs.iter_mut().for_each(Pump::take_last_words);
        self.cgroup.remove();
    }
}

/// An ACName, which is safe as a name of folders.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 255 && name.split('-').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_name_only_for_acnames() {
        assert!(is_name("web") && is_name("web-1") && is_name("0"));
        assert!(
            ["", "..", "a/b", "a--b", "-a", "a-", "A", "cgroup.procs"]
                .into_iter()
                .all(|name| !is_name(name))
        );
    }
}

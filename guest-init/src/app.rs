//! An app as PID 1 sees it: its first process, its pumps, and what the host is to be told next.
//!
//! Owned by `Supervisor`. Its life: launching, then running, then draining, then gone; or refused, then gone.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use guest_init::protocol::{self, Status, Stdio, ToHost, Window};
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::{Pid, pipe2};

use crate::cgroup::Cgroup;
use crate::fault::Fault;
use crate::host::{dial, never_wait};
use crate::ioctls;
use crate::launch::Launch;
use crate::process;
use crate::pump::Pump;
use crate::report::{self, Report, Reports};
use crate::stdio::AppStdio;

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

/// A terminal: the stream waits for the app's process to make the other half.
struct Terminal {
    stream: Rc<File>,
    sides: Option<Sides>,
}

struct Sides {
    master: Rc<File>,
    /// Held while the app lives, so that its terminal does not hang up whenever no process has it open.
    _peer: File,
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

/// The app's side of its stdio, and PID 1's.
struct Ends {
    theirs: AppStdio,
    input: Option<Pump>,
    outputs: Vec<Pump>,
    terminal: Option<Terminal>,
}

impl App {
    /// Connects the app's streams and starts its process.
    ///
    /// # Errors
    /// Whatever goes wrong before the process is there.
    pub fn start(app: &protocol::App) -> Result<Self> {
        ensure!(is_name(&app.name), "{:?} is no name for an app", app.name);
        let Ends {
            theirs,
            input,
            outputs,
            terminal,
        } = connect(&app.stdio)?;
        let cgroup = Cgroup::make(&app.name)?;
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
        if let Some(Terminal {
            sides: Some(sides), ..
        }) = &self.terminal
        {
            let _ = ioctls::resize(&sides.master, window);
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

    fn take_terminal(&mut self, master: File) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let (Ok(()), Ok(peer)) = (never_wait(&master), ioctls::open_peer(&master)) else {
            return;
        };
        let (master, stream) = (Rc::new(master), Rc::clone(&terminal.stream));
        self.input = Some(Pump::new(Rc::clone(&stream), Rc::clone(&master)));
        self.outputs = vec![Pump::new(Rc::clone(&master), stream)];
        terminal.sides = Some(Sides {
            master,
            _peer: peer,
        });
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

/// Connects the streams that `stdio` names.
fn connect(stdio: &Stdio) -> Result<Ends> {
    match *stdio {
        Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } => {
            let (stdin, input) = stdin
                .map(|port| pipe_from(port).context("stdin"))
                .transpose()?
                .unzip();
            let (stdout, output) = stdout
                .map(|port| pipe_to(port).context("stdout"))
                .transpose()?
                .unzip();
            let (stderr, errors) = stderr
                .map(|port| pipe_to(port).context("stderr"))
                .transpose()?
                .unzip();
            let outputs = output.into_iter().chain(errors).collect();
            Ok(Ends {
                theirs: AppStdio::Pipes([stdin, stdout, stderr]),
                input,
                outputs,
                terminal: None,
            })
        }
        Stdio::Terminal { port, window } => {
            let terminal = Some(Terminal {
                stream: stream(port).context("terminal")?,
                sides: None,
            });
            Ok(Ends {
                theirs: AppStdio::Terminal(window),
                input: None,
                outputs: Vec::new(),
                terminal,
            })
        }
    }
}

/// The app's end of a pipe that a stream of the host fills.
fn pipe_from(port: u32) -> Result<(File, Pump)> {
    let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let ours = File::from(ours);
    never_wait(&ours)?;
    Ok((theirs.into(), Pump::new(stream(port)?, Rc::new(ours))))
}

/// The app's end of a pipe that is emptied into a stream of the host.
fn pipe_to(port: u32) -> Result<(File, Pump)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let ours = File::from(ours);
    never_wait(&ours)?;
    Ok((theirs.into(), Pump::new(Rc::new(ours), stream(port)?)))
}

fn stream(port: u32) -> Result<Rc<File>> {
    let stream = dial(port)?;
    never_wait(&stream)?;
    Ok(Rc::new(stream))
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

//! A task's stdio on PID 1's side: the host's streams, and the pumps between them and pipes or a terminal.
//!
//! Owned by `Task`; the other side is `stdio`.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use anyhow::{Context, Result};
use guest_init::protocol::{Stdio, Window};
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;

use crate::host::{dial, never_wait};
use crate::ioctls;
use crate::pump::Pump;
use crate::stdio::TheirStdio;

/// Both sides of a task's stdio.
pub struct Streams {
    theirs: Theirs,
    /// Host to task; a terminal's comes later.
    input: Option<Pump>,
    /// Task to host; a terminal's comes later.
    outputs: Vec<Pump>,
}

/// What the task's processes get.
enum Theirs {
    /// Their ends of pipes that are there.
    Pipes([Option<File>; 3]),
    Terminal(Terminal),
    /// Nothing any more.
    Gone,
}

/// A terminal: its stream waits for the side that a process of the task makes.
struct Terminal {
    window: Window,
    stream: Rc<File>,
    sides: Option<Sides>,
}

struct Sides {
    master: Rc<File>,
    /// Held while the task lives, so that its terminal does not hang up whenever no process has it open.
    _peer: File,
}

/// A descriptor of the streams: the source or the sink of the input (`None`) or of an output.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Where bytes come from.
    Source(Option<usize>),
    /// Where they go.
    Sink(Option<usize>),
}

impl Streams {
    /// Connects the streams that `stdio` names.
    ///
    /// # Errors
    /// The host takes no connection on a port, or descriptors are short.
    pub fn connect(stdio: &Stdio) -> Result<Self> {
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
                Ok(Self {
                    theirs: Theirs::Pipes([stdin, stdout, stderr]),
                    input,
                    outputs: output.into_iter().chain(errors).collect(),
                })
            }
            Stdio::Terminal { port, window } => Ok(Self {
                theirs: Theirs::Terminal(Terminal {
                    window,
                    stream: stream(port).context("terminal")?,
                    sides: None,
                }),
                input: None,
                outputs: Vec::new(),
            }),
        }
    }

    /// No stdio.
    pub fn none() -> Self {
        Self {
            theirs: Theirs::Gone,
            input: None,
            outputs: Vec::new(),
        }
    }

    /// What the next process of the task gets.
    pub fn theirs(&self) -> TheirStdio<'_> {
        match &self.theirs {
            Theirs::Pipes(pipes) => TheirStdio::Pipes(pipes.each_ref().map(Option::as_ref)),
            Theirs::Terminal(Terminal {
                sides: Some(sides), ..
            }) => TheirStdio::Terminal(&sides.master),
            Theirs::Terminal(terminal) => TheirStdio::NewTerminal(terminal.window),
            Theirs::Gone => TheirStdio::Pipes([None; 3]),
        }
    }

    /// No process after this one gets any of it: a pipe whose other processes have closed it has ended.
    pub fn give_away(&mut self) {
        if let Theirs::Pipes(_) = self.theirs {
            self.theirs = Theirs::Gone;
        }
    }

    /// No process after this one gets the input.
    pub fn give_input_away(&mut self) {
        if let Theirs::Pipes([stdin, ..]) = &mut self.theirs {
            *stdin = None;
        }
    }

    /// Takes the terminal that a process of the task made. One without pumps is lost to the task alone: its session ends
    /// when it is closed here.
    pub fn take_terminal(&mut self, master: File) {
        if let Theirs::Terminal(terminal) = &mut self.theirs
            && let Ok((input, output)) = terminal.take(master)
        {
            (self.input, self.outputs) = (Some(input), vec![output]);
        }
    }

    /// Gives a terminal a new size, once it is there.
    pub fn resize(&self, window: Window) {
        if let Theirs::Terminal(Terminal {
            sides: Some(sides), ..
        }) = &self.theirs
        {
            // A terminal that has hung up has no size.
            let _ = ioctls::resize(&sides.master, window);
        }
    }

    /// What to wait for.
    pub fn poll(&self) -> Vec<(Way, BorrowedFd<'_>, PollFlags)> {
        let outputs = self
            .outputs
            .iter()
            .enumerate()
            .map(|(index, pump)| (Some(index), pump));
        let mut waits = Vec::new();
        for (index, pump) in outputs.chain(self.input.iter().map(|pump| (None, pump))) {
            let ends = [
                (Way::Source(index), pump.poll_source()),
                (Way::Sink(index), pump.poll_sink()),
            ];
            for (way, wait) in ends {
                waits.extend(wait.map(|(descriptor, events)| (way, descriptor, events)));
            }
        }
        waits
    }

    /// Answers an event.
    pub fn event(&mut self, way: Way, events: Option<PollFlags>) {
        let (Way::Source(index) | Way::Sink(index)) = way;
        let pump = match index {
            Some(index) => self.outputs.get_mut(index),
            None => self.input.as_mut(),
        };
        match (pump, way) {
            (Some(pump), Way::Source(_)) => pump.step(),
            (Some(pump), Way::Sink(_)) => pump.sink_event(events),
            (None, _) => {}
        }
    }

    /// Its reader is dead: no more input, and no terminal any more.
    pub fn end_input(&mut self) {
        self.input = None;
        if let Theirs::Terminal(_) = self.theirs {
            self.theirs = Theirs::Gone;
        }
    }

    /// Its last writer is dead: what was written is taken along.
    pub fn take_last_words(&mut self) {
        self.end_input();
        self.theirs = Theirs::Gone;
        self.outputs.iter_mut().for_each(Pump::take_last_words);
    }

    /// Forgets an input that has ended.
    pub fn settle(&mut self) {
        self.input.take_if(|pump| pump.is_closed());
    }

    /// Whether every byte has been handed on.
    pub fn are_delivered(&self) -> bool {
        self.outputs.iter().all(Pump::is_delivered)
    }

    /// Whether nothing of them is open.
    pub fn are_closed(&self) -> bool {
        self.input.is_none() && self.outputs.iter().all(Pump::is_closed)
    }
}

impl Terminal {
    /// Takes the side that the app's process made: the pumps of input and output.
    ///
    /// # Errors
    /// The other side cannot be opened.
    fn take(&mut self, master: File) -> Result<(Pump, Pump)> {
        never_wait(&master)?;
        let peer = ioctls::open_peer(&master)?;
        let master = Rc::new(master);
        let input = Pump::new(Rc::clone(&self.stream), Rc::clone(&master));
        let output = Pump::new(Rc::clone(&master), Rc::clone(&self.stream));
        self.sides = Some(Sides {
            master,
            _peer: peer,
        });
        Ok((input, output))
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

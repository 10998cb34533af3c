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
use crate::pump::Pump;
use crate::stdio::{self, TheirStdio, open_peer};

/// Both sides of a task's stdio.
pub struct Streams {
    /// What the task's next process gets.
    pub theirs: TheirStdio,
    /// Of stdin, stdout and stderr, while they carry something; a terminal's, which has none for stderr, come later.
    pumps: [Option<Pump>; 3],
}

/// A descriptor of the streams, by the pump that it belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Where bytes come from.
    Source(usize),
    /// Where they go.
    Sink(usize),
}

impl Streams {
    /// Connects the streams that `stdio` names.
    ///
    /// # Errors
    /// The host takes no connection on a port, or descriptors are short.
    pub fn connect(stdio: &Stdio) -> Result<Self> {
        let mut pumps = [None, None, None];
        let theirs = match *stdio {
            Stdio::Streams {
                stdin,
                stdout,
                stderr,
            } => {
                let mut pipes = [None, None, None];
                let ports = [("stdin", stdin), ("stdout", stdout), ("stderr", stderr)];
                for (index, (name, port)) in ports.into_iter().enumerate() {
                    let pipe = port.map(|port| pipe(port, index == 0).context(name));
                    (pipes[index], pumps[index]) = pipe.transpose()?.unzip();
                }
                TheirStdio::Pipes(pipes)
            }
            Stdio::Terminal { port, window } => TheirStdio::NewTerminal {
                window,
                stream: stream(port).context("terminal")?,
            },
        };
        Ok(Self { theirs, pumps })
    }

    /// No stdio.
    pub fn none() -> Self {
        Self {
            theirs: TheirStdio::NONE,
            pumps: [None, None, None],
        }
    }

    /// No process after this one gets any of it: a pipe whose other processes have closed it has ended.
    pub fn give_away(&mut self) {
        if let TheirStdio::Pipes(_) = self.theirs {
            self.theirs = TheirStdio::NONE;
        }
    }

    /// No process after this one gets the input.
    pub fn give_input_away(&mut self) {
        if let TheirStdio::Pipes([stdin, ..]) = &mut self.theirs {
            *stdin = None;
        }
    }

    /// Takes the terminal that a process of the task made. One without pumps is lost to the task alone: its session ends
    /// when it is closed here.
    pub fn take_terminal(&mut self, master: File) {
        let TheirStdio::NewTerminal { stream, .. } = &self.theirs else {
            return;
        };
        let peer = never_wait(&master).and_then(|()| open_peer(&master));
        let (Ok(peer), master) = (peer, Rc::new(master)) else {
            return;
        };
        let input = Pump::new(Rc::clone(stream), Rc::clone(&master));
        let output = Pump::new(Rc::clone(&master), Rc::clone(stream));
        self.pumps = [Some(input), Some(output), None];
        self.theirs = TheirStdio::Terminal {
            master,
            _peer: peer,
        };
    }

    /// Gives a terminal a new size, once it is there.
    pub fn resize(&self, window: Window) {
        if let TheirStdio::Terminal { master, .. } = &self.theirs {
            // A terminal that has hung up has no size.
            let _ = stdio::resize(master, window);
        }
    }

    /// What to wait for.
    pub fn poll(&self) -> impl Iterator<Item = (Way, BorrowedFd<'_>, PollFlags)> {
        let pumps = self.pumps.iter().enumerate();
        let pumps = pumps.filter_map(|(index, pump)| Some((index, pump.as_ref()?)));
        pumps.flat_map(|(index, pump)| {
            let ends = [
                (Way::Source(index), pump.poll_source()),
                (Way::Sink(index), pump.poll_sink()),
            ];
            let open = ends.into_iter();
            open.filter_map(|(way, wait)| wait.map(|(end, events)| (way, end, events)))
        })
    }

    /// Answers an event.
    pub fn event(&mut self, way: Way, events: Option<PollFlags>) {
        let (Way::Source(index) | Way::Sink(index)) = way;
        match (&mut self.pumps[index], way) {
            (Some(pump), Way::Source(_)) => pump.step(),
            (Some(pump), Way::Sink(_)) => pump.sink_event(events),
            (None, _) => {}
        }
    }

    /// Its reader is dead: no more input, and no terminal any more.
    pub fn end_input(&mut self) {
        self.pumps[0] = None;
        if !matches!(self.theirs, TheirStdio::Pipes(_)) {
            self.theirs = TheirStdio::NONE;
        }
    }

    /// Its last writer is dead: what was written is taken along.
    pub fn take_last_words(&mut self) {
        self.pumps[0] = None;
        self.theirs = TheirStdio::NONE;
        let outputs = self.pumps.iter_mut().flatten();
        outputs.for_each(Pump::take_last_words);
    }

    /// Forgets what has ended.
    pub fn settle(&mut self) {
        for pump in &mut self.pumps {
            pump.take_if(|pump| pump.is_closed());
        }
    }

    /// Whether every byte of the outputs has been handed on.
    pub fn are_delivered(&self) -> bool {
        let outputs = self.pumps[1..].iter().flatten();
        outputs.into_iter().all(Pump::is_delivered)
    }

    /// Whether nothing of them is open.
    pub fn are_closed(&self) -> bool {
        self.pumps.iter().all(Option::is_none)
    }
}

/// A pipe that carries a stream of the host into the task, or out of it: the task's end, and the pump at the other.
fn pipe(port: u32, inward: bool) -> Result<(File, Pump)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
    let (theirs, ours) = if inward {
        (reader, writer)
    } else {
        (writer, reader)
    };
    let ours = Rc::new(File::from(ours));
    never_wait(&ours)?;
    let stream = stream(port)?;
    let (source, sink) = if inward {
        (stream, ours)
    } else {
        (ours, stream)
    };
    Ok((theirs.into(), Pump::new(source, sink)))
}

fn stream(port: u32) -> Result<Rc<File>> {
    let stream = dial(port)?;
    never_wait(&stream)?;
    Ok(Rc::new(stream))
}

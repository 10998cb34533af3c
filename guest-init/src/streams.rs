//! An app's stdio on PID 1's side: the host's streams, and the pumps between them and pipes or a terminal.
//!
//! Made by `App::start`; the app's side is `stdio`.

use std::fs::File;
use std::rc::Rc;

use anyhow::{Context, Result};
use guest_init::protocol::{Stdio, Window};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::host::{dial, never_wait};
use crate::ioctls;
use crate::pump::Pump;
use crate::stdio::AppStdio;

/// Both sides of an app's stdio.
pub struct Streams {
    /// For the app's process.
    pub theirs: AppStdio,
    /// Host to app; a terminal's comes later.
    pub input: Option<Pump>,
    /// App to host; a terminal's comes later.
    pub outputs: Vec<Pump>,
    /// The terminal that is to come.
    pub terminal: Option<Terminal>,
}

/// A terminal: its stream waits for the side that the app's process makes.
pub struct Terminal {
    stream: Rc<File>,
    sides: Option<Sides>,
}

struct Sides {
    master: Rc<File>,
    /// Held while the app lives, so that its terminal does not hang up whenever no process has it open.
    _peer: File,
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
                let outputs = output.into_iter().chain(errors).collect();
                Ok(Self {
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
                Ok(Self {
                    theirs: AppStdio::Terminal(window),
                    input: None,
                    outputs: Vec::new(),
                    terminal,
                })
            }
        }
    }
}

impl Terminal {
    /// Takes the side that the app's process made: the pumps of input and output.
    ///
    /// # Errors
    /// The other side cannot be opened.
    pub fn take(&mut self, master: File) -> Result<(Pump, Pump)> {
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

    /// Gives it a new size, once it is there.
    pub fn resize(&self, window: Window) {
        if let Some(sides) = &self.sides {
            // A terminal that has hung up has no size.
            let _ = ioctls::resize(&sides.master, window);
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

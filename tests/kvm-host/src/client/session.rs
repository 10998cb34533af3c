//! One command from the client's side: bytes both ways within the credit given, signals and terminal sizes, pings, and
//! the deadline by which a silent host is taken for dead.

use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::Outcome;
use super::reach::Host;
use super::signals::{self, Signals};
use super::terminal::{self, RawTerminal};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, Stream};
use crate::wire::link::{Arrival, Link};
use crate::wire::outbox::Outbox;
use crate::wire::spec::{CHUNK_BYTES, PING_INTERVAL, SILENCE_DEADLINE, WINDOW_BYTES};

/// A pipe that polls as writable takes this much without blocking (POSIX: PIPE_BUF); the caller's descriptors are
/// shared with others, so they are not made non-blocking.
const WRITE_BYTES: usize = 4096;

struct Input {
    stream: Stream,
    fd: OwnedFd,
    credit: usize,
}

struct Output {
    stream: Stream,
    fd: OwnedFd,
    waiting: Outbox,
}

/// A session with a greeted agent.
pub struct Session<'a> {
    link: Link,
    host: &'a mut Host,
    signals: &'a Signals,
    input: Option<Input>,
    outputs: Vec<Output>,
    _raw: Option<RawTerminal>,
    had_started: bool,
    last_heard: Instant,
    last_ping: Instant,
    exit_code: Option<u8>,
}

impl<'a> Session<'a> {
    /// Asks for the command.
    pub fn new(
        mut link: Link,
        host: &'a mut Host,
        signals: &'a Signals,
        command: &Command,
    ) -> Result<Self> {
        link.send(&Frame::Start(command.encode()?))?;
        let [terminal_in, terminal_out, terminal_err] = command.terminals;
        let input = Input {
            stream: if terminal_in {
                Stream::Terminal
            } else {
                Stream::Input
            },
            fd: stdin().as_fd().try_clone_to_owned()?,
            credit: WINDOW_BYTES,
        };
        let raw = terminal_in
            .then(|| RawTerminal::enter(stdin().as_fd().try_clone_to_owned()?, !terminal_out));
        let now = Instant::now();
        Ok(Self {
            link,
            host,
            signals,
            input: Some(input),
            outputs: outputs(terminal_out, terminal_err, terminal_in)?,
            _raw: raw.transpose()?,
            had_started: false,
            last_heard: now,
            last_ping: now,
            exit_code: None,
        })
    }

    /// Until the command has ended and its output has been passed on, or the host has failed.
    pub fn run(mut self) -> Result<Outcome> {
        loop {
            let [keeper_speaks, input_ready] = self.wait()?;
            if let Some(code) = self.exit_code {
                if self.outputs.iter().all(|output| output.waiting.is_empty()) {
                    return Ok(Outcome::Exited(code));
                }
                if let Some(code) = self.signals.fatal()? {
                    return Ok(Outcome::Exited(code));
                }
                self.pass_outputs()?;
                continue;
            }
            self.pass_signals()?;
            let connected = self.link.flush()? && !matches!(self.link.receive()?, Arrival::Gone);
            self.obey_frames()?;
            if self.exit_code.is_some() {
                continue;
            }
            if keeper_speaks || !connected {
                let reason = self.host.reason();
                return Ok(Outcome::Lost {
                    had_started: self.had_started,
                    reason,
                });
            }
            if input_ready {
                self.take_input()?;
            }
            self.pass_outputs()?;
            if self.is_silent()? {
                self.host.kill();
                let reason = format!(
                    "silent for {} s: {}",
                    SILENCE_DEADLINE.as_secs(),
                    self.host.reason()
                );
                return Ok(Outcome::Lost {
                    had_started: self.had_started,
                    reason,
                });
            }
        }
    }

    /// Whether the keeper has something to say, and whether input can be read.
    fn wait(&mut self) -> Result<[bool; 2]> {
        let exited = self.exit_code.is_some();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let waiting = self
            .outputs
            .iter()
            .filter(|output| !output.waiting.is_empty());
        fds.extend(waiting.map(|output| PollFd::new(output.fd.as_fd(), PollFlags::POLLOUT)));
        if exited && fds.len() == 1 {
            return Ok([false, false]);
        }
        let keeper = fds.len();
        if !exited {
            let writes = if self.link.outbox.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::POLLOUT
            };
            fds.push(PollFd::new(self.host.keeper.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(self.link.as_fd(), PollFlags::POLLIN | writes));
            if let Some(input) = self.input.as_ref().filter(|input| input.credit > 0) {
                fds.push(PollFd::new(input.fd.as_fd(), PollFlags::POLLIN));
            }
        }
        let before = Instant::now();
        match poll(&mut fds, PollTimeout::try_from(PING_INTERVAL)?) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the command"),
        }
        let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        let found = [ready(keeper), ready(keeper + 2)];
        if before.elapsed() > PING_INTERVAL * 2 {
            // We were stopped, not the host.
            self.last_heard = Instant::now();
        }
        Ok(found)
    }

    fn pass_signals(&mut self) -> Result<()> {
        while let Some(signal) = self.signals.next()? {
            let frame = match (signal, terminal::window_size()) {
                (Signal::SIGWINCH, Some((rows, columns))) => Frame::Resize(rows, columns),
                (Signal::SIGWINCH, None) => continue,
                _ => Frame::Signal(signals::code(signal)),
            };
            self.link.send(&frame)?;
        }
        Ok(())
    }

    fn obey_frames(&mut self) -> Result<()> {
        while let Some(frame) = self.link.next_frame()? {
            self.last_heard = Instant::now();
            match frame {
                Frame::Started => self.had_started = true,
                Frame::Chunk(stream, bytes) => {
                    // An output that nobody reads any more has been taken off the list.
                    for output in self
                        .outputs
                        .iter_mut()
                        .filter(|output| output.stream == stream)
                    {
                        output.waiting.push(&bytes);
                    }
                }
                Frame::Credit(stream, bytes) => {
                    for input in self.input.iter_mut().filter(|input| input.stream == stream) {
                        input.credit = input.credit.saturating_add(usize::try_from(bytes)?);
                    }
                }
                Frame::End(stream) => {
                    self.input = self.input.take().filter(|input| input.stream != stream);
                }
                Frame::Exit(code) => self.exit_code = Some(code),
                Frame::Start(_)
                | Frame::Signal(_)
                | Frame::Resize(..)
                | Frame::Ping
                | Frame::Pong => {}
            }
        }
        Ok(())
    }

    fn take_input(&mut self) -> Result<()> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        let mut buffer = [0; CHUNK_BYTES];
        let most = input.credit.min(CHUNK_BYTES);
        match nix::unistd::read(&input.fd, &mut buffer[..most]) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) | Err(_) => {
                self.link.send(&Frame::End(input.stream))?;
                self.input = None;
            }
            Ok(count) => {
                input.credit -= count;
                self.link
                    .send(&Frame::Chunk(input.stream, buffer[..count].to_vec()))?;
            }
        }
        Ok(())
    }

    fn pass_outputs(&mut self) -> Result<()> {
        let mut open = Vec::new();
        for mut output in std::mem::take(&mut self.outputs) {
            let frame = match pass_once(&mut output)? {
                Some(count) if count > 0 => Frame::Credit(output.stream, u32::try_from(count)?),
                Some(_) => {
                    open.push(output);
                    continue;
                }
                // Nobody reads it any more.
                None => {
                    self.link.send(&Frame::End(output.stream))?;
                    continue;
                }
            };
            self.link.send(&frame)?;
            open.push(output);
        }
        self.outputs = open;
        Ok(())
    }

    /// Sends a ping when one is due; true when the host has been silent too long.
    fn is_silent(&mut self) -> Result<bool> {
        if self.last_ping.elapsed() >= PING_INTERVAL {
            self.last_ping = Instant::now();
            self.link.send(&Frame::Ping)?;
        }
        Ok(self.last_heard.elapsed() >= SILENCE_DEADLINE)
    }
}

/// Writes what can be written without waiting: the number of bytes, `None` when the reader is gone.
fn pass_once(output: &mut Output) -> Result<Option<usize>> {
    if output.waiting.is_empty() {
        return Ok(Some(0));
    }
    let mut fds = [PollFd::new(output.fd.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) | Err(Errno::EINTR) => return Ok(Some(0)),
        Ok(_) => {}
        Err(errno) => return Err(errno).context("look at an output"),
    }
    match output.waiting.write_once(&output.fd, WRITE_BYTES) {
        Ok(count) => Ok(Some(count)),
        Err(_) => Ok(None),
    }
}

/// Where the streams go; the command's terminal is ours, whichever of the three it is.
fn outputs(terminal_out: bool, terminal_err: bool, terminal_in: bool) -> Result<Vec<Output>> {
    let output = |stream, fd: OwnedFd| Output {
        stream,
        fd,
        waiting: Outbox::default(),
    };
    let mut outputs = Vec::new();
    let mut terminal = terminal_in
        .then(|| stdin().as_fd().try_clone_to_owned())
        .transpose()?;
    let pairs = [
        (
            Stream::Error,
            terminal_err,
            stderr().as_fd().try_clone_to_owned()?,
        ),
        (
            Stream::Output,
            terminal_out,
            stdout().as_fd().try_clone_to_owned()?,
        ),
    ];
    for (stream, is_terminal, fd) in pairs {
        if is_terminal {
            terminal = Some(fd);
        } else {
            outputs.push(output(stream, fd));
        }
    }
    outputs.extend(terminal.map(|fd| output(Stream::Terminal, fd)));
    Ok(outputs)
}

const _: () = assert!(PING_INTERVAL.as_secs() * 3 < SILENCE_DEADLINE.as_secs());

//! One client's command: starts it, moves bytes both ways within the credit given, passes signals on, and reports its
//! end after its last byte. A client that goes away takes the command with it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::cgroup::Cgroup;
use super::child::{self, Child};
use crate::wire::command::Command;
use crate::wire::frame::{Frame, Stream};
use crate::wire::link::{Arrival, Link};
use crate::wire::outbox::Outbox;
use crate::wire::spec::{CHUNK_BYTES, WINDOW_BYTES};

/// What a terminal's last bytes may take to come through after the command has ended.
const TERMINAL_DRAIN: Duration = Duration::from_millis(300);

/// An output of the command.
struct Source {
    stream: Stream,
    fd: OwnedFd,
    credit: usize,
}

/// The input of the command.
struct Sink {
    stream: Stream,
    fd: OwnedFd,
    waiting: Outbox,
    ended: bool,
}

struct Session<'a> {
    link: &'a mut Link,
    child: Child,
    sources: Vec<Source>,
    sink: Option<Sink>,
    children: SignalFd,
    exited: Option<(ExitStatus, Instant)>,
}

/// Serves one client until its command has ended and been reported, or the client is gone.
pub fn serve(link: &mut Link, port: usize, serial: u64) -> Result<()> {
    let Some(command) = await_start(link)? else {
        return Ok(());
    };
    let group = Cgroup::create(port, serial)?;
    // Made before the command, whose end it reports.
    let children = child_signals()?;
    let child = match child::start(&command, group.entrance()?)? {
        Ok(child) => child,
        Err(refusal) => {
            group.remove();
            return refuse(link, &refusal);
        }
    };
    link.send(&Frame::Started)?;
    let mut session = Session::new(link, child, children)?;
    let served = session.run();
    if matches!(served, Ok(true)) {
        group.remove();
        return Ok(());
    }
    group.kill()?;
    session
        .child
        .process
        .wait()
        .context("wait for a killed command")?;
    group.remove_killed();
    served.map(|_| ())
}

fn child_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("watch for the command's end")
}

/// Answers pings until a command comes; `None` when the client is gone.
fn await_start(link: &mut Link) -> Result<Option<Command>> {
    loop {
        while let Some(frame) = link.next_frame()? {
            match frame {
                Frame::Start(payload) => return Command::decode(&payload).map(Some),
                Frame::Ping => link.send(&Frame::Pong)?,
                _ => {}
            }
        }
        if !exchange(link)? {
            return Ok(None);
        }
    }
}

/// Waits for the port, then reads and writes it; false when the client is gone.
fn exchange(link: &mut Link) -> Result<bool> {
    let mut ports = [PollFd::new(link.as_fd(), port_events(link))];
    match poll(&mut ports, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("wait for the port"),
    }
    move_port(link)
}

fn port_events(link: &Link) -> PollFlags {
    if link.outbox.is_empty() {
        PollFlags::POLLIN
    } else {
        PollFlags::POLLIN | PollFlags::POLLOUT
    }
}

fn move_port(link: &mut Link) -> Result<bool> {
    Ok(link.flush()? && !matches!(link.receive()?, Arrival::Gone))
}

fn flush_all(link: &mut Link) -> Result<bool> {
    while !link.outbox.is_empty() {
        if !exchange(link)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn refuse(link: &mut Link, refusal: &child::Refusal) -> Result<()> {
    link.send(&Frame::Chunk(
        Stream::Error,
        format!("on-kvm: {}\n", refusal.message).into_bytes(),
    ))?;
    link.send(&Frame::Exit(refusal.code))?;
    flush_all(link)?;
    Ok(())
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

impl<'a> Session<'a> {
    fn new(link: &'a mut Link, mut child: Child, children: SignalFd) -> Result<Self> {
        let [input, output, error] = std::mem::take(&mut child.pipes);
        let terminal = child
            .terminal
            .as_ref()
            .map(OwnedFd::try_clone)
            .transpose()?;
        let outputs = [
            (Stream::Output, output),
            (Stream::Error, error),
            (Stream::Terminal, terminal),
        ];
        let source = |(stream, fd): (Stream, Option<OwnedFd>)| {
            Some(Source {
                stream,
                fd: fd?,
                credit: WINDOW_BYTES,
            })
        };
        let sources = outputs.into_iter().filter_map(source).collect();
        let (stream, fd) = match (input, &child.terminal) {
            (Some(pipe), _) => (Stream::Input, Some(pipe)),
            (None, Some(terminal)) => (Stream::Terminal, Some(terminal.try_clone()?)),
            (None, None) => (Stream::Input, None),
        };
        let sink = fd.map(|fd| Sink {
            stream,
            fd,
            waiting: Outbox::default(),
            ended: false,
        });
        Ok(Self {
            link,
            child,
            sources,
            sink,
            children,
            exited: None,
        })
    }

    /// True after the command's end has been reported; false when the client went away first.
    fn run(&mut self) -> Result<bool> {
        loop {
            self.wait()?;
            self.note_exit()?;
            if !move_port(self.link)? {
                return Ok(false);
            }
            while let Some(frame) = self.link.next_frame()? {
                self.obey(frame)?;
            }
            self.feed_input()?;
            self.take_outputs()?;
            if let Some((status, _)) = self.exited
                && self.sources.is_empty()
            {
                self.link.send(&Frame::Exit(exit_code(status)))?;
                return flush_all(self.link);
            }
        }
    }

    /// Waits until something can move.
    fn wait(&self) -> Result<()> {
        let mut fds = vec![
            PollFd::new(self.link.as_fd(), port_events(self.link)),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        // An output without credit is not asked for: its bytes wait in the pipe.
        let events = |source: &Source| {
            if source.credit > 0 {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            }
        };
        fds.extend(
            self.sources
                .iter()
                .map(|source| PollFd::new(source.fd.as_fd(), events(source))),
        );
        if let Some(sink) = self.sink.as_ref().filter(|sink| !sink.waiting.is_empty()) {
            fds.push(PollFd::new(sink.fd.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("wait for the command"),
        }
    }

    fn timeout(&self) -> PollTimeout {
        // Once the command has ended nothing wakes us for an output that stays open elsewhere.
        if self.exited.is_some() && self.sources.iter().any(|source| source.credit > 0) {
            return PollTimeout::from(10_u8);
        }
        PollTimeout::NONE
    }

    fn note_exit(&mut self) -> Result<()> {
        while self.children.read_signal()?.is_some() {}
        if self.exited.is_none()
            && let Some(status) = self.child.process.try_wait()?
        {
            self.exited = Some((status, Instant::now()));
            self.sink = None;
        }
        Ok(())
    }

    fn obey(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Ping => self.link.send(&Frame::Pong)?,
            Frame::Chunk(stream, bytes) => {
                if let Some(sink) = self.sink.as_mut().filter(|sink| sink.stream == stream) {
                    sink.waiting.push(&bytes);
                }
            }
            Frame::End(stream) => self.end(stream),
            Frame::Credit(stream, bytes) => {
                for source in self
                    .sources
                    .iter_mut()
                    .filter(|source| source.stream == stream)
                {
                    source.credit = source.credit.saturating_add(usize::try_from(bytes)?);
                }
            }
            Frame::Signal(number) => self.signal(number),
            Frame::Resize(rows, columns) => {
                if let Some(terminal) = &self.child.terminal {
                    child::resize(terminal, (rows, columns));
                }
            }
            Frame::Start(_) | Frame::Started | Frame::Pong | Frame::Exit(_) => {}
        }
        Ok(())
    }

    fn end(&mut self, stream: Stream) {
        // Nobody reads this output any more: closing it tells the command by SIGPIPE.
        self.sources.retain(|source| source.stream != stream);
        if let Some(sink) = self.sink.as_mut().filter(|sink| sink.stream == stream) {
            sink.ended = true;
        }
    }

    /// What a terminal sends goes to all of the command, any other signal to the process itself.
    fn signal(&self, number: u8) {
        let (Ok(pid), Ok(signal)) = (
            i32::try_from(self.child.process.id()),
            Signal::try_from(i32::from(number)),
        ) else {
            return;
        };
        let pid = Pid::from_raw(pid);
        if self.exited.is_some() {
            return;
        }
        // The command may be gone in this moment; then there is nobody to tell.
        let _ = match signal {
            Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP | Signal::SIGTERM => {
                killpg(pid, signal)
            }
            _ => kill(pid, signal),
        };
    }

    fn feed_input(&mut self) -> Result<()> {
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        match sink.waiting.write_once(&sink.fd, CHUNK_BYTES) {
            Ok(0) => {}
            Ok(count) => self
                .link
                .send(&Frame::Credit(sink.stream, u32::try_from(count)?))?,
            Err(_) => {
                self.link.send(&Frame::End(sink.stream))?;
                self.sink = None;
                return Ok(());
            }
        }
        if sink.ended && sink.waiting.is_empty() && sink.stream == Stream::Input {
            self.sink = None;
        }
        Ok(())
    }

    fn take_outputs(&mut self) -> Result<()> {
        let mut open = Vec::new();
        for mut source in std::mem::take(&mut self.sources) {
            if self.take_output(&mut source)? {
                open.push(source);
            }
        }
        self.sources = open;
        Ok(())
    }

    /// Moves one chunk; false when the output has ended.
    fn take_output(&mut self, source: &mut Source) -> Result<bool> {
        if source.credit == 0 {
            return Ok(true);
        }
        let mut buffer = [0; CHUNK_BYTES];
        let most = source.credit.min(CHUNK_BYTES);
        match nix::unistd::read(&source.fd, &mut buffer[..most]) {
            Ok(0) => Ok(false),
            Ok(count) => {
                source.credit -= count;
                self.link
                    .send(&Frame::Chunk(source.stream, buffer[..count].to_vec()))?;
                Ok(true)
            }
            // After the command's end an empty pipe is drained, though others may hold it open; a terminal's bytes
            // come through a moment later.
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(match self.exited {
                None => true,
                Some((_, at)) => source.stream == Stream::Terminal && at.elapsed() < TERMINAL_DRAIN,
            }),
            Err(_) => Ok(false),
        }
    }
}

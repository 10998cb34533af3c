//! An app's /dev/log: what its programs send there by syslog(3) become lines of its stderr.
//!
//! A process for each app reads it, out of the apps' sight. An app can send descriptors beside a message, and to let go of one may take
//! as long as the app likes (a TCP socket that lingers). PID 1 must not wait for that, so it never holds the socket.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result};
use guest_init::packets::{self, Received};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, alarm, dup2_stderr};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::stdio::TheirStdio;
use crate::{console, process, report};

const PATH: &str = "/dev/log";

/// The longest message, bytes; the rest of a longer one is lost.
const MAX_BYTES: usize = 64 << 10;

/// How long the reader may take to let go of what came beside a message, seconds; then it dies, and nobody reads any more.
const LET_GO_SECONDS: u32 = 10;

/// The reader of an app's log, which ends with it.
pub struct Syslog {
    reader: Pid,
    line: OwnedFd,
}

impl Syslog {
    /// Starts the reader, which writes to the stderr of `stdio`, and to nobody where that is no pipe.
    pub fn start(stdio: &TheirStdio) -> Result<Self> {
        let (ours, theirs) = report::line()?;
        if let Some(reader) = process::split().context("start the reader of /dev/log")? {
            return Ok(Self { reader, line: ours });
        }
        if let Err(error) = prepare(stdio, &theirs).and_then(|()| read(&theirs)) {
            console::say(&format!("read an app's /dev/log: {error:#}"));
        }
        std::process::exit(0)
    }

    /// Makes /dev/log in the root of the calling process, and hands it to the reader.
    pub fn open(&self) -> Result<()> {
        let log = UnixDatagram::bind(PATH).with_context(|| format!("make {PATH}"))?;
        fs::set_permissions(PATH, Permissions::from_mode(0o666))
            .with_context(|| format!("let everybody write to {PATH}"))?;
        packets::send(self.line.as_fd(), &(), &[log.as_fd()])
            .with_context(|| format!("hand over {PATH}"))
    }

    /// Whether `pid` is its reader's.
    pub fn is_read_by(&self, pid: Pid) -> bool {
        self.reader == pid
    }

    /// The reader is to take what was sent so far, and to end.
    pub fn end(&self) {
        // Others may have copies of this end.
        let _ = rustix::net::shutdown(&self.line, rustix::net::Shutdown::Both);
    }

    /// The reader is to end now.
    pub fn kill(&self) {
        let _ = process::kill(self.reader, libc::SIGKILL);
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.end();
    }
}

/// The reader has nothing of PID 1's but its end of the line and where it writes.
fn prepare(stdio: &TheirStdio, line: &OwnedFd) -> Result<()> {
    match stdio {
        TheirStdio::Pipes([_, _, Some(stderr)]) => dup2_stderr(stderr),
        _ => dup2_stderr(open_null()?),
    }
    .context("set the stderr")?;
    process::close_others(line.as_raw_fd());
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGALRM);
    signals.thread_unblock().context("unblock the alarm")
}

fn open_null() -> Result<File> {
    let null = OpenOptions::new().write(true).open("/dev/null");
    null.context("open /dev/null")
}

/// Reads what comes to the end.
fn read(line: &OwnedFd) -> Result<()> {
    wait(&mut [PollFd::new(line.as_fd(), PollFlags::POLLIN)])?;
    let Received::Message((), sockets) = packets::receive(line.as_fd())? else {
        return Ok(());
    };
    let log = sockets.into_iter().next().context("no socket came")?;
    let log = UnixDatagram::from(log);
    let mut message = vec![0; MAX_BYTES];
    let mut is_over = false;
    while !is_over {
        let mut waits =
            [&log.as_fd(), &line.as_fd()].map(|end| PollFd::new(*end, PollFlags::POLLIN));
        wait(&mut waits)?;
        is_over = waits[1].any().unwrap_or(true);
        if is_over {
            // Another app may have a way to it, and go on.
            log.shutdown(Shutdown::Read).context("shut it")?;
        }
        while let Some(count) = take(&log, &mut message)? {
            // Who does not listen to stderr does not hear of it.
            let _ = io::stderr().write_all(&as_line(&message[..count]));
        }
    }
    Ok(())
}

fn wait(ends: &mut [PollFd]) -> Result<()> {
    poll(ends, PollTimeout::NONE).context("wait for messages")?;
    Ok(())
}

/// The bytes of the next message, if there is one.
fn take(log: &UnixDatagram, message: &mut [u8]) -> Result<Option<usize>> {
    alarm::set(LET_GO_SECONDS);
    let taken = recv(log, message, RecvFlags::DONTWAIT);
    alarm::cancel();
    match taken {
        Ok((count, _)) => Ok(Some(count)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error).context("take a message"),
    }
}

/// A message, `<PRIORITY>text` with or without an end of its own, as a line of the text.
fn as_line(message: &[u8]) -> Vec<u8> {
    let end = message.iter().take(5).position(|byte| *byte == b'>');
    let end = end.filter(|_| message[0] == b'<');
    let text = &message[end.map_or(0, |end| end + 1)..];
    let is_text = |byte: &u8| !matches!(byte, b'\n' | 0);
    let length = text.iter().rposition(is_text).map_or(0, |last| last + 1);
    [&text[..length], b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_line_is_the_text_alone_with_one_end() {
        for (message, line) in [
            ("<13>web: one", "web: one\n"),
            ("two\n\0", "two\n"),
            ("", "\n"),
            (">", ">\n"),
            ("<12345>six", "<12345>six\n"),
            ("<1>a\nb\n", "a\nb\n"),
        ] {
            assert_eq!(as_line(message.as_bytes()), line.as_bytes());
        }
    }
}

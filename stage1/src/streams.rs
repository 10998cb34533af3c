//! The pod's side of an app's stdio: blocking threads between the process's own descriptors and the sockets that the
//! vsock device serves. Back-pressure is the sockets' own: a pump reads no more than it could write.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use guest_init::protocol::Stdio;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm::running::STACK_BYTES;
use vmm_sys_util::eventfd::EventFd;

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// The host's ends of streams that the guest has not yet dialled, by port. Each is given out once.
#[derive(Clone, Default)]
pub struct Ports(Arc<Mutex<HashMap<u32, UnixStream>>>);

impl Ports {
    /// Opens `port` for one connection and returns our end of it.
    ///
    /// # Errors
    /// When no socket pair can be made.
    pub fn open(&self, port: u32) -> Result<UnixStream> {
        let (ours, guests) =
            UnixStream::pair().context("make a socket pair for a stream of the pod")?;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port, guests);
        Ok(ours)
    }

    /// What the vsock device asks when the guest dials.
    pub fn take(&self, port: u32) -> Option<UnixStream> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&port)
    }

    /// Closes what was never dialled, so that its pumps end.
    pub fn close(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// The running pumps of one app.
pub struct Pumps {
    outputs: u64,
    ended: u64,
}

impl Pumps {
    /// Opens the ports of `stdio` and starts a pump for each; `done` is signalled whenever an output has ended and its
    /// last byte is written. `confine` is the first thing each thread does.
    ///
    /// # Errors
    /// When a socket pair or a thread cannot be made.
    pub fn start(
        stdio: Stdio,
        ports: &Ports,
        done: &EventFd,
        confine: fn() -> Result<()>,
    ) -> Result<Self> {
        let mut pumps = Self {
            outputs: 0,
            ended: 0,
        };
        match stdio {
            Stdio::Streams {
                stdin,
                stdout,
                stderr,
            } => {
                if let Some(port) = stdin {
                    pump_input(ports.open(port)?, confine)?;
                }
                for (port, descriptor) in [(stdout, 1), (stderr, 2)] {
                    if let Some(port) = port {
                        pump_output(ports.open(port)?, descriptor, done, confine)?;
                        pumps.outputs += 1;
                    }
                }
            }
            Stdio::Terminal { port, .. } => {
                let stream = ports.open(port)?;
                pump_input(
                    stream.try_clone().context("share the terminal's stream")?,
                    confine,
                )?;
                pump_output(stream, 1, done, confine)?;
                pumps.outputs += 1;
            }
        }
        Ok(pumps)
    }

    /// Takes note of `count` outputs that have ended, as the event of [`Pumps::start`] tells. The threads themselves are
    /// not asked: they signal before they are gone.
    pub fn note_ended(&mut self, count: u64) {
        self.ended = self.ended.saturating_add(count);
    }

    /// Whether every output has ended.
    pub fn drained(&self) -> bool {
        self.ended >= self.outputs
    }
}

fn pump_input(mut stream: UnixStream, confine: fn() -> Result<()>) -> Result<()> {
    spawn("stdin", confine, move || {
        // A guest that closed its end is no failure: the app just does not read.
        let _ = copy(&mut *borrowed(0), &mut stream);
        let _ = stream.shutdown(Shutdown::Write);
    })
}

fn pump_output(
    mut stream: UnixStream,
    descriptor: RawFd,
    done: &EventFd,
    confine: fn() -> Result<()>,
) -> Result<()> {
    let done = done
        .try_clone()
        .context("share the event of ended outputs")?;
    let name = if descriptor == 2 { "stderr" } else { "stdout" };
    spawn(name, confine, move || {
        // When our own stdout is gone, closing the stream passes that on: the app's next write fails with EPIPE.
        if let Err(error) = copy(&mut stream, &mut *borrowed(descriptor))
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            crate::tell(&format!("write the app's output to {name}: {error}"));
        }
        let _ = stream.shutdown(Shutdown::Both);
        let _ = done.write(1);
    })
}

fn spawn(
    name: &str,
    confine: fn() -> Result<()>,
    pump: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let confined = move || match confine() {
        Ok(()) => pump(),
        Err(error) => crate::fail(&error),
    };
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(confined)
        .with_context(|| format!("start the {name} thread"))?;
    Ok(())
}

/// One of the process's own stdio descriptors, unbuffered, left open when dropped.
fn borrowed(descriptor: RawFd) -> ManuallyDrop<File> {
    #[expect(unsafe_code, reason = "std offers stdio only through its own buffers")]
    // SAFETY: 0, 1 and 2 are open for the life of the process (std opens /dev/null for closed ones at start), and
    // ManuallyDrop keeps this File from closing them.
    ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) })
}

/// Copies to the end of `from`. Either side may be non-blocking: stdio is shared with whoever else has it open.
fn copy(from: &mut (impl Read + AsFd), to: &mut (impl Write + AsFd)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => write_whole(to, &buffer[..read])?,
            Err(error) => wait_after(&error, from.as_fd(), PollFlags::POLLIN).ok_or(error)?,
        }
    }
}

fn write_whole(to: &mut (impl Write + AsFd), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) => wait_after(&error, to.as_fd(), PollFlags::POLLOUT).ok_or(error)?,
        }
    }
    Ok(())
}

/// Waits until an operation that failed with `error` is worth another try; `None` = it never is.
fn wait_after(error: &io::Error, descriptor: BorrowedFd<'_>, events: PollFlags) -> Option<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Some(()),
        io::ErrorKind::WouldBlock => {
            // A failed wait shows in the next try.
            let _ = poll(&mut [PollFd::new(descriptor, events)], PollTimeout::NONE);
            Some(())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_to_a_full_non_blocking_descriptor_waits_and_loses_nothing() {
        let (mut source, mut feed) = UnixStream::pair().expect("a socket pair");
        let (mut sink, mut reader) = UnixStream::pair().expect("a socket pair");
        sink.set_nonblocking(true).expect("a non-blocking socket");
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = bytes.clone();
        let feeder = thread::spawn(move || feed.write_all(&bytes));
        let copier = thread::spawn(move || copy(&mut source, &mut sink));
        let mut arrived = Vec::new();
        reader.read_to_end(&mut arrived).expect("a readable socket");
        feeder.join().expect("no panic").expect("all was taken");
        copier.join().expect("no panic").expect("all was copied");
        assert!(arrived == expected);
    }

    #[test]
    fn pumps_are_drained_when_as_many_outputs_have_ended_as_there_are() {
        let mut pumps = Pumps {
            outputs: 2,
            ended: 0,
        };
        pumps.note_ended(1);
        assert!(!pumps.drained());
        pumps.note_ended(1);
        assert!(pumps.drained());
    }
}

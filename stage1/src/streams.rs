//! The pod's side of an app's stdio: blocking threads between the process's own descriptors and the sockets that the
//! vsock device serves. Back-pressure is the sockets' own: a pump reads no more than it could write.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use guest_init::protocol::Stdio;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use vmm::running::STACK_BYTES;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::keys::LeavingKeys;
use crate::log::{self, Log};
use crate::visitors::Visitors;

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
        self.lend(port, guests);
        Ok(ours)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u32, UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the vsock device asks when the guest dials.
    pub fn take(&self, port: u32) -> Option<UnixStream> {
        self.held().remove(&port)
    }

    /// Gives the guest `stream` when it dials `port`.
    pub fn lend(&self, port: u32, stream: UnixStream) {
        self.held().insert(port, stream);
    }

    /// Closes those of `ports` that were never dialled, so that their pumps end.
    pub fn close(&self, ports: &Range<u32>) {
        self.held().retain(|port, _| !ports.contains(port));
    }
}

/// What an app's streams are called, by their descriptors.
pub const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];

/// The running pumps of one task.
pub struct Pumps {
    /// How many outputs have not ended.
    outputs: Arc<AtomicU64>,
    left: Arc<AtomicBool>,
    /// Who sees stdout (or a terminal) and stderr, where there are such, and who writes stdin, where that is visitors' to
    /// write: by descriptor.
    visitors: [Option<Arc<Visitors>>; 3],
    is_terminal: bool,
}

/// The streams of an app that can be attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Whether its stdin, stdout and stderr can.
    pub streams: [bool; 3],
    /// Whether the first two are a terminal's.
    pub terminal: bool,
}

/// Where a task's stdin comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// This process's own.
    Own,
    /// The same, at which there are keys by which the user leaves.
    OwnWithKeys,
    /// Whoever attaches, one after the other.
    Visitors,
}

/// The event of [`Sharing::drained`].
///
/// # Errors
/// When descriptors are short.
pub fn drained_event() -> Result<Arc<EventFd>> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
    event
        .map(Arc::new)
        .context("make the event of ended outputs")
}

/// How pumps of the pod share this process.
pub struct Sharing {
    /// Signalled whenever an output has ended and its last byte is written, or the user has left.
    pub drained: Arc<EventFd>,
    /// The first thing each thread does.
    pub confine: fn() -> Result<()>,
    /// The app's name, in a pod of several: what each of its lines begins with.
    pub label: Option<String>,
    /// Where they are kept.
    pub log: Option<Arc<Mutex<Log>>>,
    /// Where stdin comes from.
    pub input: Input,
}

impl Pumps {
    /// Opens the ports of `stdio` and starts a pump for each.
    ///
    /// # Errors
    /// When a socket pair or a thread cannot be made.
    pub fn start(stdio: Stdio, ports: &Ports, sharing: &Sharing) -> Result<Self> {
        let mut pumps = Self {
            outputs: Arc::default(),
            left: Arc::default(),
            visitors: Default::default(),
            is_terminal: matches!(stdio, Stdio::Terminal { .. }),
        };
        match stdio {
            Stdio::Streams {
                stdin,
                stdout,
                stderr,
            } => {
                if let Some(port) = stdin {
                    pumps.pump_input(ports.open(port)?, sharing)?;
                }
                for (port, descriptor) in [(stdout, 1), (stderr, 2)] {
                    if let Some(port) = port {
                        pumps.pump_output(ports.open(port)?, descriptor, sharing)?;
                    }
                }
            }
            Stdio::Terminal { port, .. } => {
                let stream = ports.open(port)?;
                let input = stream.try_clone().context("share the terminal's stream")?;
                pumps.pump_input(input, sharing)?;
                pumps.pump_output(stream, 1, sharing)?;
            }
        }
        Ok(pumps)
    }

    /// What can be attached to.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            streams: self.visitors.each_ref().map(Option::is_some),
            terminal: self.is_terminal,
        }
    }

    /// Attaches streams of a visitor's to stdin, stdout and stderr, where they have them.
    pub fn attach(&self, streams: [Option<UnixStream>; 3]) {
        // Stdin last: what is read from it may be answered at once.
        for (visitors, stream) in self.visitors.iter().zip(streams).rev() {
            if let (Some(visitors), Some(stream)) = (visitors, stream) {
                visitors.add(stream);
            }
        }
    }

    fn visitors(&self) -> impl Iterator<Item = &Visitors> {
        self.visitors.iter().flatten().map(Arc::as_ref)
    }

    /// Lets go of visitors who are gone.
    pub fn prune(&self) {
        self.visitors().for_each(Visitors::prune);
    }

    /// Turns all visitors out: one who does not read holds up what the app writes.
    pub fn turn_out(&self) {
        self.visitors().for_each(Visitors::turn_out);
    }

    fn pump_input(&mut self, mut stream: UnixStream, sharing: &Sharing) -> Result<()> {
        if sharing.input == Input::Visitors {
            let visitors = self.let_in(0);
            return spawn(NAMES[0], sharing.confine, move || {
                while let Some(visitor) = visitors.next() {
                    // One that breaks off is followed by the next as one that ends.
                    let _ = copy(&mut &*visitor, |bytes| write_whole(&mut stream, bytes));
                    visitors.remove(&visitor);
                }
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
        let mut keys = (sharing.input == Input::OwnWithKeys).then(LeavingKeys::default);
        let (left, changed) = (Arc::clone(&self.left), Arc::clone(&sharing.drained));
        spawn(NAMES[0], sharing.confine, move || {
            // A guest that closed its end is no failure: the app just does not read.
            let _ = copy(&mut *borrowed(0), |bytes| {
                let Some(keys) = &mut keys else {
                    return write_whole(&mut stream, bytes);
                };
                let (typed, leaves) = keys.take(bytes);
                write_whole(&mut stream, &typed)?;
                if leaves {
                    left.store(true, Ordering::Release);
                    let _ = changed.write(1);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(())
            });
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    /// Whether the user has left by his keys.
    pub fn user_has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Whether every output has ended, and its last byte is written. The threads themselves are not asked: they say so
    /// before they are gone.
    pub fn drained(&self) -> bool {
        self.outputs.load(Ordering::Acquire) == 0
    }

    /// Those who will come to the stream of this descriptor.
    fn let_in(&mut self, descriptor: u8) -> Arc<Visitors> {
        Arc::clone(self.visitors[usize::from(descriptor)].insert(Arc::default()))
    }

    fn pump_output(
        &mut self,
        mut stream: UnixStream,
        descriptor: u8,
        sharing: &Sharing,
    ) -> Result<()> {
        let name = NAMES[usize::from(descriptor)];
        let (outputs, changed) = (Arc::clone(&self.outputs), Arc::clone(&sharing.drained));
        let log = sharing.log.as_ref();
        let mut log = log.map(|log| log::Stream::new(Arc::clone(log), name));
        let mut lines = Lines::new(sharing.label.clone());
        let watchers = self.let_in(descriptor);
        outputs.fetch_add(1, Ordering::Relaxed);
        spawn(name, sharing.confine, move || {
            let output = &mut *borrowed(descriptor);
            let copied = copy(&mut stream, |bytes| {
                if let Some(log) = &mut log {
                    log.take(bytes);
                }
                for watcher in watchers.all() {
                    if write_whole(&mut &*watcher, bytes).is_err() {
                        watchers.remove(&watcher);
                    }
                }
                lines.write(bytes, output)
            });
            let copied = copied.and_then(|()| lines.end(output));
            if let Some(log) = &mut log {
                log.end();
            }
            // When our own stdout is gone, closing the stream passes that on: the app's next write fails with EPIPE.
            if let Err(error) = copied
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                crate::tell(&format!("write the app's output to {name}: {error}"));
            }
            let _ = stream.shutdown(Shutdown::Both);
            watchers.close();
            outputs.fetch_sub(1, Ordering::Release);
            let _ = changed.write(1);
        })
    }
}

impl Drop for Pumps {
    /// An input that is visitors' ends with its app.
    fn drop(&mut self) {
        if let [Some(writers), ..] = &self.visitors {
            writers.close();
        }
    }
}

/// Starts a thread, whose first deed is `confine`.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(
    name: &str,
    confine: fn() -> Result<()>,
    work: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let confined = move || match confine() {
        Ok(()) => work(),
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
fn borrowed(descriptor: u8) -> ManuallyDrop<File> {
    #[expect(unsafe_code, reason = "std offers stdio only through its own buffers")]
    // SAFETY: 0, 1 and 2 are open for the life of the process (std opens /dev/null for closed ones at start), and
    // ManuallyDrop keeps this File from closing them.
    ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor.into()) })
}

/// Passes all of `from` on. Either side may be non-blocking: stdio is shared with whoever else has it open.
fn copy(
    from: &mut (impl Read + AsFd),
    mut pass_on: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => pass_on(&buffer[..read])?,
            Err(error) => wait_after(&error, from.as_fd(), PollFlags::POLLIN).ok_or(error)?,
        }
    }
}

/// An output on its way to the process's own: as it comes, or line by line with a label.
struct Lines {
    label: Option<String>,
    /// The line that has not ended.
    line: Vec<u8>,
}

impl Lines {
    fn new(label: Option<String>) -> Self {
        Self {
            label,
            line: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8], to: &mut (impl Write + AsFd)) -> io::Result<()> {
        let Some(label) = &self.label else {
            return write_whole(to, bytes);
        };
        self.line.extend_from_slice(bytes);
        let whole = match self.line.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            // The longest are cut into several.
            None if self.line.len() >= BUFFER_BYTES => self.line.len(),
            None => return Ok(()),
        };
        let lines = labelled(&self.line[..whole], label);
        self.line.drain(..whole);
        // Others' lines do not interrupt these; nothing here writes by way of std's stdout.
        let _turn = io::stdout().lock();
        write_whole(to, &lines)
    }

    /// A last line without its end gets one.
    fn end(&mut self, to: &mut (impl Write + AsFd)) -> io::Result<()> {
        match self.line.is_empty() {
            true => Ok(()),
            false => self.write(b"\n", to),
        }
    }
}

/// The lines of `text`, each with `app` before it and a newline at its end.
fn labelled(text: &[u8], app: &str) -> Vec<u8> {
    let mut labelled = Vec::with_capacity(text.len() + app.len() + 3);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        labelled.extend_from_slice(app.as_bytes());
        labelled.extend_from_slice(b": ");
        labelled.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        labelled.push(b'\n');
    }
    labelled
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
        let copier =
            thread::spawn(move || copy(&mut source, |bytes| write_whole(&mut sink, bytes)));
        let mut arrived = Vec::new();
        reader.read_to_end(&mut arrived).expect("a readable socket");
        feeder.join().expect("no panic").expect("all was taken");
        copier.join().expect("no panic").expect("all was copied");
        assert!(arrived == expected);
    }

    #[test]
    fn lines_are_labelled_and_kept_whole() {
        let (mut sink, mut reader) = UnixStream::pair().expect("a socket pair");
        let long = "x".repeat(BUFFER_BYTES);
        let expected = format!("half{long}");
        let writer = thread::spawn(move || {
            let mut lines = Lines::new(Some("web".into()));
            for piece in ["a", "b\n\nc\nhal", "f", &long, "end"] {
                lines.write(piece.as_bytes(), &mut sink).expect("a reader");
            }
            lines.end(&mut sink).expect("a reader");
        });
        let mut arrived = String::new();
        reader.read_to_string(&mut arrived).expect("text");
        writer.join().expect("no panic");
        let lines: Vec<_> = arrived.lines().collect();
        assert_eq!(lines[..3], ["web: ab", "web: ", "web: c"]);
        assert!(lines[3] == format!("web: {expected}") && lines[4..] == ["web: end"]);
    }

    #[test]
    fn ports_of_one_task_are_closed_and_others_stay() {
        let ports = Ports::default();
        let (mut ended, _other) = (
            ports.open(1024).expect("a port"),
            ports.open(1028).expect("a port"),
        );
        ports.close(&(1024..1028));
        assert_eq!(ended.read(&mut [0]).expect("an end"), 0);
        assert!(ports.take(1024).is_none() && ports.take(1028).is_some());
    }
}

//! The pod's side of an app's stdio: blocking threads between the process's own descriptors and the sockets that the
//! vsock device serves. Back-pressure is the sockets' own: a pump reads no more than it could write.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use guest_init::protocol::Stdio;
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
    outputs: Vec<JoinHandle<()>>,
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
            outputs: Vec::new(),
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
                        pumps.outputs.push(pump_output(
                            ports.open(port)?,
                            descriptor,
                            done,
                            confine,
                        )?);
                    }
                }
            }
            Stdio::Terminal { port, .. } => {
                let stream = ports.open(port)?;
                pump_input(
                    stream.try_clone().context("share the terminal's stream")?,
                    confine,
                )?;
                pumps.outputs.push(pump_output(stream, 1, done, confine)?);
            }
        }
        Ok(pumps)
    }

    /// Whether every output has ended.
    pub fn drained(&self) -> bool {
        self.outputs.iter().all(JoinHandle::is_finished)
    }
}

fn pump_input(mut stream: UnixStream, confine: fn() -> Result<()>) -> Result<()> {
    spawn("stdin", confine, move || {
        // A guest that closed its end is no failure: the app just does not read.
        let _ = copy(&mut *borrowed(0), &mut stream);
        let _ = stream.shutdown(Shutdown::Write);
    })?;
    Ok(())
}

fn pump_output(
    mut stream: UnixStream,
    descriptor: RawFd,
    done: &EventFd,
    confine: fn() -> Result<()>,
) -> Result<JoinHandle<()>> {
    let done = done
        .try_clone()
        .context("share the event of ended outputs")?;
    let name = if descriptor == 2 { "stderr" } else { "stdout" };
    spawn(name, confine, move || {
        // When our own stdout is gone, closing the stream passes that on: the app's next write fails with EPIPE.
        let _ = copy(&mut stream, &mut *borrowed(descriptor));
        let _ = stream.shutdown(Shutdown::Both);
        let _ = done.write(1);
    })
}

fn spawn(
    name: &str,
    confine: fn() -> Result<()>,
    pump: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let confined = move || match confine() {
        Ok(()) => pump(),
        Err(error) => crate::fail(&error),
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(confined)
        .with_context(|| format!("start the {name} thread"))
}

/// One of the process's own stdio descriptors, unbuffered, left open when dropped.
fn borrowed(descriptor: RawFd) -> ManuallyDrop<File> {
    #[expect(unsafe_code, reason = "std offers stdio only through its own buffers")]
    // SAFETY: 0, 1 and 2 are open for the life of the process (std opens /dev/null for closed ones at start), and
    // ManuallyDrop keeps this File from closing them.
    ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) })
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

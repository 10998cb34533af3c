//! From nothing to a greeted agent: finds a kept host or starts one by way of its keeper, is given a port, and waits
//! for the agent to answer.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::signals::Signals;
use super::{Options, Outcome};
use crate::host::{Shape, keeper, place};
use crate::wire::greeting::{self, Nonce};
use crate::wire::link::{Arrival, Link, read_once};
use crate::wire::spec::{BOOT_DEADLINE, GREETING_DEADLINE};

/// After so long without an answer a host that is up is greeted again: the first greeting may have ended in the
/// last client's session.
const GREET_AGAIN: Duration = Duration::from_secs(3);
const END_DEADLINE: Duration = Duration::from_secs(10);

/// A host, as its client sees it.
pub struct Host {
    dir: PathBuf,
    /// The keeper's end counts its clients by these connections.
    pub keeper: UnixStream,
    is_new: bool,
    is_kept: bool,
}

/// What greeting came to.
pub enum Greeted {
    /// The agent answers.
    Link(Link),
    /// It does not.
    Not(Outcome),
}

/// Waits until the keeper closes the connection, which it does when all is gone.
pub fn await_end(keeper: &mut UnixStream) {
    let _ = keeper.set_read_timeout(Some(END_DEADLINE));
    let _ = keeper.shutdown(Shutdown::Write);
    let _ = std::io::copy(keeper, &mut std::io::sink());
}

impl Host {
    /// Says goodbye; a host that is not kept is gone when this returns.
    pub fn leave(mut self) {
        if !self.is_kept {
            await_end(&mut self.keeper);
        }
    }

    /// Has the keeper end a host that does not answer.
    pub fn kill(&mut self) {
        let _ = std::io::Write::write_all(&mut self.keeper, keeper::KILL.as_bytes());
    }

    /// Why the host failed, in the keeper's words; waits a moment for them.
    pub fn reason(&mut self) -> String {
        let _ = self.keeper.set_nonblocking(false);
        let _ = self.keeper.set_read_timeout(Some(END_DEADLINE));
        let mut words = Vec::new();
        let _ = self.keeper.read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words);
        match words.split_once(keeper::LOST) {
            Some((_, reason)) => reason.to_string(),
            None => "its keeper is gone".to_string(),
        }
    }
}

/// A host for this call: with `--keep` one that is there already, if it is made of the same things.
pub fn find_or_start(options: &Options) -> Result<Host> {
    let folder = place::user_folder()?;
    let lock = place::lock(&folder)?;
    let shape = shape(options, &folder)?;
    if options.keep.is_some()
        && let Ok(keeper) = UnixStream::connect(shape.dir.join(keeper::SOCKET))
    {
        return Ok(Host {
            dir: shape.dir,
            keeper,
            is_new: false,
            is_kept: true,
        });
    }
    remove_dead(&folder)?;
    fs::create_dir(&shape.dir).with_context(|| format!("make {}", shape.dir.display()))?;
    start_keeper(&shape)?;
    let keeper =
        UnixStream::connect(shape.dir.join(keeper::SOCKET)).context("connect to the keeper")?;
    drop(lock);
    Ok(Host {
        dir: shape.dir,
        keeper,
        is_new: true,
        is_kept: options.keep.is_some(),
    })
}

fn shape(options: &Options, folder: &Path) -> Result<Shape> {
    let wanted = options
        .folders
        .iter()
        .cloned()
        .chain([options.place.checkout.clone()]);
    let folders = place::bound_folders(wanted);
    let name = if let Some(name) = &options.keep {
        let program = fs::metadata("/proc/self/exe").context("look at this program")?;
        let made_of = (
            name,
            &folders,
            &options.kernel,
            options.memory_mib,
            options.icount,
            program.modified().ok(),
            program.len(),
        );
        format!(
            "{}{:016x}",
            place::kept_prefix(&options.place.checkout),
            place::digest(&made_of)
        )
    } else {
        format!("once-{}", std::process::id())
    };
    Ok(Shape {
        dir: folder.join(name),
        kernel: options.kernel.clone(),
        folders,
        memory_mib: options.memory_mib,
        icount: options.icount,
        idle_seconds: options.keep.as_ref().map(|_| options.idle_seconds),
    })
}

/// Removes folders whose keeper was killed; called under the lock, so none is just being made.
fn remove_dead(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if UnixStream::connect(path.join(keeper::SOCKET)).is_err() {
            // Its keeper may be removing it, too.
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn start_keeper(shape: &Shape) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("keeper")
        .arg("--dir")
        .arg(&shape.dir)
        .arg("--kernel")
        .arg(&shape.kernel);
    command.arg(format!("--memory-mib={}", shape.memory_mib));
    for folder in &shape.folders {
        command.arg("--folder").arg(folder);
    }
    if shape.icount {
        command.arg("--icount");
    }
    if let Some(seconds) = shape.idle_seconds {
        command.arg(format!("--idle-seconds={seconds}"));
    }
    let complaints = shape.dir.join("keeper.log");
    let log = File::create(&complaints).context("make the keeper's log")?;
    let reader = File::open(&complaints)?;
    let started = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn();
    let mut child = started.context("start the keeper")?;
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout
            .read_to_string(&mut said)
            .context("listen to the keeper")?;
    }
    if said.trim_end() != keeper::READY {
        bail!(
            "start an emulated host: {}",
            std::io::read_to_string(reader)?
                .trim_end()
                .trim_start_matches("on-kvm: ")
        );
    }
    Ok(())
}

fn nonce() -> Result<Nonce> {
    let mut nonce = Nonce::default();
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut nonce))
        .context("read /dev/urandom")?;
    Ok(nonce)
}

/// Waits for a port and for the agent behind it.
pub fn greet(host: &mut Host, signals: &Signals) -> Result<Greeted> {
    let port = match wait_for_port(host, signals)? {
        Ok(port) => port,
        Err(outcome) => return Ok(Greeted::Not(outcome)),
    };
    let deadline = Instant::now()
        + if host.is_new {
            BOOT_DEADLINE
        } else {
            GREETING_DEADLINE
        };
    let socket = host.dir.join(crate::host::port_socket(port));
    loop {
        let patience = if host.is_new {
            BOOT_DEADLINE
        } else {
            GREET_AGAIN
        };
        // No socket: the host has failed, and its keeper will say why.
        let Ok(stream) = UnixStream::connect(&socket) else {
            return Ok(Greeted::Not(Outcome::Lost {
                had_started: false,
                reason: host.reason(),
            }));
        };
        stream.set_nonblocking(true)?;
        match greet_once(host, signals, stream.into(), patience)? {
            Some(greeted) => return Ok(greeted),
            None if Instant::now() < deadline => {}
            None => break,
        }
    }
    host.kill();
    let reason = format!("no answer from its agent: {}", host.reason());
    Ok(Greeted::Not(Outcome::Lost {
        had_started: false,
        reason,
    }))
}

/// What came first while we waited.
enum Event {
    Bytes,
    Nothing,
    Ended(Outcome),
}

/// Waits until `port` can be read, the keeper speaks, or a signal comes.
fn await_event(
    host: &mut Host,
    signals: &Signals,
    port: Option<&OwnedFd>,
    until: Option<Instant>,
) -> Result<Event> {
    let mut fds = vec![
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(host.keeper.as_fd(), PollFlags::POLLIN),
    ];
    fds.extend(port.map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)));
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = left.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from)?;
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("wait for the host"),
    }
    let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
    if let Some(code) = signals.fatal()? {
        return Ok(Event::Ended(Outcome::Interrupted(code)));
    }
    if port.is_some() && ready.get(1) == Some(&true) {
        return Ok(Event::Ended(Outcome::Lost {
            had_started: false,
            reason: host.reason(),
        }));
    }
    let bytes = ready.last() == Some(&true);
    Ok(if bytes { Event::Bytes } else { Event::Nothing })
}

fn wait_for_port(host: &mut Host, signals: &Signals) -> Result<Result<usize, Outcome>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        match await_event(host, signals, None, None)? {
            Event::Nothing => continue,
            Event::Ended(outcome) => return Ok(Err(outcome)),
            Event::Bytes => {}
        }
        let mut byte = [0];
        let read = match host.keeper.read(&mut byte) {
            // It ended before it had taken the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read.context("listen to the keeper")?,
        };
        if read == 0 {
            return Ok(Err(Outcome::Lost {
                had_started: false,
                reason: "its keeper is gone".into(),
            }));
        }
        line.extend(byte);
    }
    let text = String::from_utf8_lossy(&line);
    let Some(number) = text.strip_prefix(keeper::PORT) else {
        let reason = text.trim_start_matches(keeper::LOST).to_string() + &host.reason();
        return Ok(Err(Outcome::Lost {
            had_started: false,
            reason,
        }));
    };
    Ok(Ok(number.trim_end().parse().context("a port's number")?))
}

/// One connection to the port; `None` when patience or the connection ended.
fn greet_once(
    host: &mut Host,
    signals: &Signals,
    port: OwnedFd,
    patience: Duration,
) -> Result<Option<Greeted>> {
    let nonce = nonce()?;
    // Fits in any socket's empty buffer.
    nix::unistd::write(&port, &greeting::hello(&nonce)).context("greet the agent")?;
    let until = Instant::now() + patience;
    let mut bytes = Vec::new();
    while Instant::now() < until {
        match await_event(host, signals, Some(&port), Some(until))? {
            Event::Nothing => {}
            Event::Ended(outcome) => return Ok(Some(Greeted::Not(outcome))),
            Event::Bytes => match read_once(port.as_fd(), &mut bytes)? {
                Arrival::Bytes if greeting::find_welcome(&mut bytes, &nonce) => {
                    return Ok(Some(Greeted::Link(Link::new(port, &bytes))));
                }
                Arrival::Bytes | Arrival::Nothing => {}
                // Without a pause a dead host's socket would be tried in a tight loop; its keeper reports it shortly.
                Arrival::Gone => {
                    return await_event(host, signals, None, Some(Instant::now() + GREET_AGAIN))
                        .map(|_| None);
                }
            },
        }
    }
    Ok(None)
}

//! The keeper owns one emulated host: starts its processes, gives each client a port, and ends all of it when the
//! last client is gone (at once, or after a while for a kept host), when asked to, or when one of the processes dies.
//!
//! A client holds a connection to the keeper's socket for as long as it lives. The keeper writes "port N" on it and,
//! if the host fails, "lost REASON"; the client may write "kill". One process, one thread.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Shape, initramfs, processes};
use crate::wire::spec::PORTS;

/// Name of the keeper's socket.
pub const SOCKET: &str = "keeper";
/// Name of the initramfs.
pub const INITRAMFS: &str = "initramfs";
/// Said on standard output once clients can connect.
pub const READY: &str = "ready";

/// What a client may ask for.
pub const KILL: &str = "kill\n";
/// The keeper's word for a port, before its number.
pub const PORT: &str = "port ";
/// The keeper's word for a host that failed, before the reason.
pub const LOST: &str = "lost ";

/// How long QEMU's end may be seen after that of its file servers.
const QEMU_END: Duration = Duration::from_millis(500);

struct Client {
    stream: UnixStream,
    port: Option<usize>,
}

struct Keeper<'a> {
    shape: &'a Shape,
    listener: UnixListener,
    signals: SignalFd,
    processes: Vec<Child>,
    clients: Vec<Client>,
    /// Clients that have left and wait to see the host gone: their connections close last.
    departed: Vec<UnixStream>,
    /// Ports without a client, the one that has been free longest first.
    free_ports: Vec<usize>,
    idle_since: Instant,
}

/// Runs an emulated host to its end; its folder is gone afterwards.
pub fn main(shape: &Shape) -> Result<()> {
    // Away from the terminal of the client that started us: its Ctrl-C is not for us.
    nix::unistd::setsid().context("leave the session")?;
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let ended = keep(shape, signals);
    // One that lived has removed it before its clients' connections closed: by now a client may have made it anew.
    if ended.is_err() {
        let _ = fs::remove_dir_all(&shape.dir);
    }
    ended
}

fn keep(shape: &Shape, signals: SignalFd) -> Result<()> {
    let socket = shape.dir.join(SOCKET);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("listen on {}", socket.display()))?;
    fs::write(
        shape.dir.join(INITRAMFS),
        initramfs::build(&shape.kernel, &shape.folders)?,
    )
    .context("write the initramfs")?;
    let processes = processes::start(shape)?;
    println!("{READY}");
    let null = fs::File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null).context("let go of standard output")?;
    let mut keeper = Keeper {
        shape,
        listener,
        signals,
        processes,
        clients: Vec::new(),
        departed: Vec::new(),
        free_ports: (0..PORTS).collect(),
        idle_since: Instant::now(),
    };
    let reason = keeper.run();
    keeper.end(reason)
}

impl Keeper<'_> {
    /// Serves clients; the reason why the host failed, none if it is simply not needed any more.
    fn run(&mut self) -> Result<Option<String>> {
        let mut had_client = false;
        loop {
            let was_busy = !self.clients.is_empty();
            let ready = self.wait()?;
            if self.was_told_to_end()? {
                return Ok(None);
            }
            if let Some(reason) = self.dead_process()? {
                return Ok(Some(reason));
            }
            if ready.first() == Some(&true) {
                let (stream, _) = self.listener.accept().context("accept a client")?;
                self.clients.push(Client { stream, port: None });
                had_client = true;
            }
            if self.hear(ready.get(2..).unwrap_or_default()) {
                return Ok(Some("ended by request".into()));
            }
            self.give_ports();
            let is_busy = !self.clients.is_empty();
            if was_busy || is_busy {
                self.idle_since = Instant::now();
            }
            if !is_busy && self.is_over(had_client) {
                return Ok(None);
            }
        }
    }

    fn is_over(&self, had_client: bool) -> bool {
        match self.shape.idle_seconds {
            Some(seconds) => self.idle_since.elapsed() >= Duration::from_secs(seconds),
            // The client that started a host connects within moments.
            None => had_client || self.idle_since.elapsed() >= Duration::from_secs(10),
        }
    }

    /// Which of listener, signals and clients have something to say.
    fn wait(&self) -> Result<Vec<bool>> {
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(
            self.clients
                .iter()
                .map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = if self.clients.is_empty() {
            PollTimeout::from(1000_u16)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for clients"),
        }
        Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect())
    }

    fn was_told_to_end(&self) -> Result<bool> {
        let mut told = false;
        while let Some(signal) = self.signals.read_signal()? {
            told |= signal.ssi_signo.cast_signed() != Signal::SIGCHLD as i32;
        }
        Ok(told)
    }

    fn dead_process(&mut self) -> Result<Option<String>> {
        let mut reason = None;
        for (process, name) in self
            .processes
            .iter_mut()
            .zip(["file server", "file server", "qemu"])
        {
            // A file server ends with its QEMU and may be seen first; then QEMU is the one to name.
            let patience = if reason.is_some() {
                QEMU_END
            } else {
                Duration::ZERO
            };
            if let Some(status) = await_exit(process, patience)? {
                reason = Some(format!("{name} ended ({status})"));
            }
        }
        Ok(reason)
    }

    /// Drops clients that are gone; true when one asks for the end.
    fn hear(&mut self, ready: &[bool]) -> bool {
        let mut kill = false;
        let mut kept = Vec::new();
        for (index, mut client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            let mut buffer = [0; 64];
            let is_ready = ready.get(index).copied().unwrap_or(false);
            let count = if is_ready {
                client.stream.read(&mut buffer).unwrap_or(0)
            } else {
                1
            };
            kill |= is_ready && buffer.starts_with(KILL.as_bytes());
            if count > 0 {
                kept.push(client);
            } else {
                self.free_ports.extend(client.port);
                if self.shape.idle_seconds.is_none() {
                    self.departed.push(client.stream);
                }
            }
        }
        self.clients = kept;
        kill
    }

    /// Clients without a port wait until one is free.
    fn give_ports(&mut self) {
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.port.is_none())
        {
            if self.free_ports.is_empty() {
                return;
            }
            let port = self.free_ports.remove(0);
            client.port = Some(port);
            // A client that is gone is noticed when it is next heard.
            let _ = client
                .stream
                .write_all(format!("{PORT}{port}\n").as_bytes());
        }
    }

    /// Kills the processes, tells the clients why, and removes the folder; the clients' connections close last.
    fn end(&mut self, reason: Result<Option<String>>) -> Result<()> {
        for process in &mut self.processes {
            let _ = process.kill();
            process.wait().context("wait for a killed process")?;
        }
        let reason = reason.unwrap_or_else(|error| Some(format!("{error:#}")));
        if let Some(reason) = reason {
            let last_words = last_words(&self.shape.dir);
            for client in &mut self.clients {
                let _ = client
                    .stream
                    .write_all(format!("{LOST}{reason}{last_words}").as_bytes());
            }
        }
        fs::remove_dir_all(&self.shape.dir).context("remove the host's folder")
    }
}

/// Waits for a process's end, but no longer than `patience`.
fn await_exit(process: &mut Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = process.try_wait().context("look at a process")?;
        if status.is_some() || start.elapsed() >= patience {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What tells a telling line of the console from the dump around it.
const TELLING: [&str; 4] = ["on-kvm agent", "Kernel panic", "BUG:", "soft lockup"];

/// The telling lines and the last ones, of the console and of the processes' complaints.
fn last_words(dir: &Path) -> String {
    let mut words = String::new();
    for name in [processes::CONSOLE, processes::LOG] {
        let text = fs::read(dir.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let last = lines.len().saturating_sub(5);
        for (index, line) in lines.iter().enumerate() {
            if index >= last || TELLING.iter().any(|mark| line.contains(mark)) {
                words += &format!("\n  {name}: {line}");
            }
        }
    }
    words
}

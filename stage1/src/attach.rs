//! The `attach` entrypoint: this process's stdio becomes that of an app that runs, beside what the app has already. The working
//! directory is the pod directory.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use contract::PodDir;
use guest_init::protocol::{FIRST_STREAM_PORT, Stdio};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use vmm::event::descriptor;
use vmm_sys_util::eventfd::EventFd;

use crate::clients::{self, Answer, Attachment, Caller, Request};
use crate::life::FAILED;
use crate::session;
use crate::streams::{self, Endpoints, Ports, Pumps, Sharing};
use crate::terminal::{self, Raw};
use crate::waits;

/// Bytes read from the user at a time.
const INPUT_BYTES: usize = 16 << 10;

/// Attaches as `argv` says: `--action=list|auto-attach|custom-attach [--tty-in=BOOL …] --app=NAME --debug=BOOL`. The exit code is
/// the app's; 0 for a user who leaves before its end.
///
/// # Errors
/// When the app does not run, or has no such stream.
pub fn attach(argv: impl Iterator<Item = String>) -> Result<u8> {
    let wanted = Wanted::parse(argv)?;
    let caller = Caller::come(&PodDir::new(".").socket())?;
    caller.ask(&Request::Endpoints(wanted.app.clone()), &[])?;
    let has = match caller.hear()? {
        Some(Answer::Endpoints(endpoints)) => endpoints,
        other => return Err(clients::refusal(other)),
    };
    let endpoints = match wanted.action {
        Action::List => return list(has),
        Action::Auto => has,
        Action::Custom(endpoints) => endpoints,
    };
    Visit::begin(&caller, wanted.app, endpoints)?.follow()
}

enum Action {
    List,
    Auto,
    Custom(Endpoints),
}

struct Wanted {
    app: String,
    action: Action,
}

impl Wanted {
    fn parse(argv: impl Iterator<Item = String>) -> Result<Self> {
        let (mut app, mut action) = (None, None);
        let mut custom = Endpoints {
            stdin: false,
            stdout: false,
            stderr: false,
            terminal: false,
        };
        for argument in argv {
            let (name, value) = argument.split_once('=').unwrap_or((&argument, "true"));
            let flag = match name {
                "--app" => {
                    app = Some(value.to_owned());
                    continue;
                }
                "--action" => {
                    action = Some(value.to_owned());
                    continue;
                }
                "--debug" => continue,
                "--tty-in" | "--stdin" => &mut custom.stdin,
                "--tty-out" | "--stdout" => &mut custom.stdout,
                "--stderr" => &mut custom.stderr,
                _ => bail!("unknown argument {argument:?}"),
            };
            let given: bool = value
                .parse()
                .with_context(|| format!("read {argument:?}"))?;
            *flag |= given;
            custom.terminal |= name.starts_with("--tty") && given;
        }
        let action = match action.as_deref() {
            Some("list") => Action::List,
            Some("auto-attach") | None => Action::Auto,
            Some("custom-attach") => Action::Custom(custom),
            Some(other) => bail!("unknown action {other:?}"),
        };
        let app = app.context("no --app")?;
        Ok(Self { app, action })
    }
}

fn list(has: Endpoints) -> Result<u8> {
    let names = match has.terminal {
        true => [("tty-in", has.stdin), ("tty-out", has.stdout), ("", false)],
        false => [
            ("stdin", has.stdin),
            ("stdout", has.stdout),
            ("stderr", has.stderr),
        ],
    };
    for (name, _) in names.iter().filter(|(_, is_there)| *is_there) {
        println!("{name}");
    }
    Ok(0)
}

/// A user at an app.
struct Visit<'a> {
    pod: &'a Caller,
    /// Where what the user types goes, until it ends.
    input: Option<UnixStream>,
    /// What has been typed and not been taken yet.
    typed: Vec<u8>,
    /// Whether the app's terminal has the size of the user's.
    sizes: bool,
    keys: Option<LeavingKeys>,
    pumps: Pumps,
    drained: EventFd,
    signals: SignalFd,
    _raw: Option<Raw>,
}

impl<'a> Visit<'a> {
    fn begin(pod: &'a Caller, app: String, endpoints: Endpoints) -> Result<Self> {
        let signals = session::block_signals()?;
        let ports = Ports::default();
        let drained = streams::drained_event()?;
        let output = |offset, wanted: bool| wanted.then_some(FIRST_STREAM_PORT + offset);
        let (stdout, stderr) = (output(1, endpoints.stdout), output(2, endpoints.stderr));
        let stdio = Stdio::Streams {
            stdin: None,
            stdout,
            stderr,
        };
        let pumps = Pumps::start(stdio, &ports, &Sharing::of_caller(&drained))?;
        let (input, apps) = match endpoints.stdin {
            true => {
                let (ours, apps) = UnixStream::pair().context("make a socket pair")?;
                ours.set_nonblocking(true).context("prepare the input")?;
                (Some(ours), Some(OwnedFd::from(apps)))
            }
            false => (None, None),
        };
        let outputs = [stdout, stderr].into_iter().flatten();
        let outputs = outputs
            .filter_map(|port| ports.take(port))
            .map(OwnedFd::from);
        let theirs: Vec<_> = apps.into_iter().chain(outputs).collect();
        let beside: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let window = terminal::window().filter(|_| endpoints.terminal && endpoints.stdin);
        let wanted = Attachment {
            app,
            endpoints,
            window,
        };
        pod.ask(&Request::Attach(wanted), &beside)?;
        Ok(Self {
            pod,
            input,
            typed: Vec::new(),
            sizes: window.is_some(),
            keys: window.map(|_| LeavingKeys::default()),
            pumps,
            drained,
            signals,
            _raw: window.map(|_| Raw::enter()).transpose()?,
        })
    }

    /// Until the app has ended, or the user leaves.
    fn follow(mut self) -> Result<u8> {
        loop {
            let ready = self.wait()?;
            if ready.signal
                && let Some(code) = self.heed_signals()?
            {
                return Ok(code);
            }
            if ready.input && self.type_on()? {
                return Ok(0);
            }
            if ready.answer
                && let Some(code) = self.pod.look_for_end()?
            {
                // Others may write now.
                self.input = None;
                return self.wait_for_outputs(code);
            }
        }
    }

    /// Waits for something to happen.
    fn wait(&self) -> Result<Ready> {
        let stdin = io::stdin();
        let mut waits = vec![
            PollFd::new(self.pod.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        waits.extend(
            self.input
                .as_ref()
                .map(|input| match self.typed.is_empty() {
                    true => PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                    false => PollFd::new(input.as_fd(), PollFlags::POLLOUT),
                }),
        );
        waits::wait(&mut waits, None, "the app")?;
        let ready = |index: usize| waits.get(index).is_some_and(waits::is_ready);
        Ok(Ready {
            answer: ready(0),
            signal: ready(1),
            input: ready(2),
        })
    }

    /// Passes a new size of the terminal on; any other signal is for this visit alone, which it ends with this code.
    fn heed_signals(&self) -> Result<Option<u8>> {
        while let Some(info) = self.signals.read_signal().context("read a signal")? {
            if info.ssi_signo != Signal::SIGWINCH as u32 {
                return Ok(Some(u8::try_from(info.ssi_signo + 128).unwrap_or(FAILED)));
            }
            if let Some(window) = terminal::window().filter(|_| self.sizes) {
                // A pod that has let go has said why.
                let _ = self.pod.ask(&Request::Resize(window), &[]);
            }
        }
        Ok(None)
    }

    /// Passes on what is typed, without waiting for the app; whether the user leaves by it.
    fn type_on(&mut self) -> Result<bool> {
        let mut leaves = false;
        if self.typed.is_empty() {
            let mut bytes = [0; INPUT_BYTES];
            // Not by way of std's buffer, into which nobody can wait.
            let read = match nix::unistd::read(io::stdin(), &mut bytes) {
                Ok(read) => read,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
                Err(error) => return Err(error).context("read what is typed"),
            };
            if read == 0 {
                self.input = None;
            }
            (self.typed, leaves) = match &mut self.keys {
                Some(keys) => keys.take(&bytes[..read]),
                None => (bytes[..read].to_vec(), false),
            };
        }
        let Some(input) = &mut self.input else {
            return Ok(leaves);
        };
        match input.write(&self.typed) {
            Ok(taken) => drop(self.typed.drain(..taken)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The app reads no more.
            Err(_) => self.input = None,
        }
        Ok(leaves)
    }

    /// Until every byte has been written, or nobody reads it, or the user leaves.
    fn wait_for_outputs(&self, code: u8) -> Result<u8> {
        while !self.pumps.drained() {
            let mut waits = [
                PollFd::new(descriptor(&self.drained), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            waits::wait(&mut waits, None, "the app's outputs")?;
            if waits::is_ready(&waits[1])
                && let Some(code) = self.heed_signals()?
            {
                return Ok(code);
            }
            let _ = self.drained.read();
        }
        Ok(code)
    }
}

/// What a wait found.
struct Ready {
    answer: bool,
    signal: bool,
    /// Something is typed, or what was typed can be passed on.
    input: bool,
}

/// Ctrl-P and Ctrl-Q after another, by which a user leaves a terminal that is not his.
#[derive(Default)]
struct LeavingKeys {
    first: bool,
}

impl LeavingKeys {
    const FIRST: u8 = 0x10;
    const SECOND: u8 = 0x11;

    /// What of `typed` is for the app, and whether the user leaves.
    fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut kept = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (std::mem::take(&mut self.first), *byte) {
                (true, Self::SECOND) => return (kept, true),
                (before, Self::FIRST) => {
                    // Of two, the first is for the app.
                    kept.extend(before.then_some(Self::FIRST));
                    self.first = true;
                }
                (before, byte) => {
                    kept.extend(before.then_some(Self::FIRST));
                    kept.push(byte);
                }
            }
        }
        (kept, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_keys_are_kept_from_the_app_only_together() {
        let typed = |pieces: &[&[u8]]| {
            let mut keys = LeavingKeys::default();
            let mut kept = Vec::new();
            let left = pieces.iter().any(|piece| {
                let (bytes, leaves) = keys.take(piece);
                kept.extend(bytes);
                leaves
            });
            (kept, left)
        };
        assert_eq!(typed(&[b"ab\x10", b"\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(typed(&[b"\x10a\x11"]), (b"\x10a\x11".to_vec(), false));
        assert_eq!(typed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }

    #[test]
    fn wanted_is_parsed_as_the_contract_writes_it() {
        let parsed = |line: &str| Wanted::parse(line.split_whitespace().map(String::from));
        let custom = parsed(
            "--action=custom-attach --tty-in=false --tty-out=false --stdin=true --stdout=false --stderr=true --app=a --debug=false",
        );
        let Action::Custom(endpoints) = custom.expect("valid").action else {
            panic!("not custom");
        };
        let wanted = Endpoints {
            stdin: true,
            stdout: false,
            stderr: true,
            terminal: false,
        };
        assert_eq!(endpoints, wanted);
        for wrong in [
            "--action=list",
            "--app=a --action=x",
            "--app=a --stdin=x",
            "--app=a --x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}

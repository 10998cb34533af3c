//! The client: finds or starts an emulated host, runs one command on it, and behaves like that command.

mod reach;
mod session;
mod signals;
mod terminal;

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};

use crate::host::{keeper, place};
use crate::wire::command::Command;
use signals::Signals;

/// Whose hosts are meant.
#[derive(clap::Args)]
pub struct Place {
    /// The checkout; kept hosts belong to one.
    #[arg(long)]
    checkout: PathBuf,
}

/// What to run, and on what kind of host.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Folder with vmlinux and lib/modules.
    #[arg(long)]
    kernel: PathBuf,
    /// Folders, besides the checkout, that are the same files on both sides.
    #[arg(long = "folder")]
    folders: Vec<PathBuf>,
    /// Leaves the host running for later calls that ask for one of the same name.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    keep: Option<String>,
    /// The host's clock counts instructions: times read in it are deterministic.
    #[arg(long)]
    icount: bool,
    /// Memory of the host in MiB.
    #[arg(long, env = "FAIRING_KVM_MEMORY_MIB", default_value_t = 1536)]
    memory_mib: u32,
    /// How long a kept host stays without a client.
    #[arg(long, env = "FAIRING_KVM_IDLE_SECONDS", default_value_t = 300)]
    idle_seconds: u64,
    /// The command.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// How an attempt to run the command ended.
enum Outcome {
    /// The command's exit code.
    Exited(u8),
    /// A signal ended this client before the command had started.
    Interrupted(u8),
    /// The host failed.
    Lost { had_started: bool, reason: String },
}

/// Runs the command; its exit code, or 128 + n when signal n ended it or this client.
pub fn run(options: &Options) -> Result<u8> {
    let command = command(options)?;
    // Before the first process: a signal that comes from here on is passed on, not obeyed.
    let signals = Signals::catch()?;
    let mut first = true;
    loop {
        match attempt(options, &command, &signals)? {
            Outcome::Exited(code) | Outcome::Interrupted(code) => return Ok(code),
            Outcome::Lost {
                had_started: false,
                reason,
            } if first => {
                eprintln!(
                    "on-kvm: the emulated host failed before the command started; trying once more: {reason}"
                );
                first = false;
            }
            Outcome::Lost { reason, .. } => anyhow::bail!("the emulated host failed: {reason}"),
        }
    }
}

fn attempt(options: &Options, command: &Command, signals: &Signals) -> Result<Outcome> {
    let mut host = reach::find_or_start(options)?;
    let outcome = match reach::greet(&mut host, signals)? {
        reach::Greeted::Link(link) => {
            session::Session::new(link, &mut host, signals, command)?.run()?
        }
        reach::Greeted::Not(outcome) => outcome,
    };
    host.leave();
    Ok(outcome)
}

fn command(options: &Options) -> Result<Command> {
    let terminals = [
        std::io::stdin().is_terminal(),
        std::io::stdout().is_terminal(),
        std::io::stderr().is_terminal(),
    ];
    let mask = umask(Mode::empty());
    umask(mask);
    Ok(Command {
        terminals,
        window: terminal::window_size().unwrap_or((24, 80)),
        umask: mask.bits(),
        directory: std::env::current_dir().context("ask for the working directory")?,
        arguments: options.command.clone(),
        environment: std::env::vars_os().collect(),
    })
}

/// Ends the checkout's kept hosts at once.
pub fn stop(place: &Place) -> Result<()> {
    let folder = place::user_folder()?;
    let prefix = place::kept_prefix(&place.checkout);
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        // One that nobody answers for has ended already.
        if let Ok(mut stream) = UnixStream::connect(entry.path().join(keeper::SOCKET)) {
            stream
                .write_all(keeper::KILL.as_bytes())
                .context("ask a kept host to end")?;
            reach::await_end(&mut stream);
        }
    }
    Ok(())
}

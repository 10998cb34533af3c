//! An app's stdio on the app's side: pipes that its user owns, or a terminal of its own. Called by `launch`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use guest_init::protocol::Window;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setsid};

use crate::account::Account;
use crate::ioctls;
use crate::mount_table::bind;
use crate::report::Reporter;

/// The group of terminals in all distributions, as in the options of /dev/pts.
const TTY_GROUP: u32 = 5;

/// What a process of a task is given.
pub enum TheirStdio<'a> {
    /// Its ends of three pipes; /dev/null for a missing one.
    Pipes([Option<&'a File>; 3]),
    /// It is to make a terminal of this size and hand the other side to PID 1.
    NewTerminal(Window),
    /// The other side of the terminal that a process before it made.
    Terminal(&'a File),
}

/// How much of it a process uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// All: it reads the input, and a terminal is its session's.
    Whole,
    /// It only writes.
    Output,
}

/// Makes the calling process the leader of a session with this stdio.
pub fn take(stdio: &TheirStdio, used: Use, account: &Account, reporter: &Reporter) -> Result<()> {
    setsid().context("start a session")?;
    match stdio {
        TheirStdio::Pipes([stdin, stdout, stderr]) => {
            let stdin = stdin.filter(|_| used == Use::Whole);
            take_pipes([stdin, *stdout, *stderr], account)
        }
        TheirStdio::NewTerminal(window) => {
            let master = make_terminal(*window)?;
            reporter.terminal(&master)?;
            take_terminal(&master, used, account)
        }
        TheirStdio::Terminal(master) => take_terminal(master, used, account),
    }
}

/// Lets the app's /dev/console be its terminal, the first of a fresh /dev/pts, if it has one.
pub fn make_console(stdio: &TheirStdio) -> Result<()> {
    match stdio {
        TheirStdio::Pipes(_) => Ok(()),
        TheirStdio::NewTerminal(_) | TheirStdio::Terminal(_) => bind("/dev/pts/0", "/dev/console"),
    }
}

/// Owned pipes can be opened again by name, as /dev/stdout.
fn take_pipes(pipes: [Option<&File>; 3], account: &Account) -> Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    for pipe in pipes.into_iter().flatten() {
        give_to(pipe, account.uid, account.gid)?;
    }
    let [stdin, stdout, stderr] = pipes.map(|pipe| pipe.unwrap_or(&null));
    become_stdio(stdin, stdout, stderr)
}

fn make_terminal(window: Window) -> Result<File> {
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/pts/ptmx")
        .context("open a terminal")?;
    // The size is both sides' own.
    ioctls::resize(&master, window).context("set the size of the terminal")?;
    Ok(master)
}

fn take_terminal(master: &File, used: Use, account: &Account) -> Result<()> {
    let terminal = ioctls::open_peer(master).context("open the app's side of its terminal")?;
    give_to(&terminal, account.uid, TTY_GROUP)?;
    if used == Use::Whole {
        ioctls::control_terminal(&terminal).context("take the terminal")?;
    }
    become_stdio(&terminal, &terminal, &terminal)
}

fn give_to(file: &File, uid: u32, gid: u32) -> Result<()> {
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .context("give the app its stdio")
}

fn become_stdio(stdin: &File, stdout: &File, stderr: &File) -> Result<()> {
    dup2_stdin(stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .context("set the stdio")
}

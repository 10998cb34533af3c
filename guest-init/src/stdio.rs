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

/// What the app's process was given.
pub enum AppStdio {
    /// Its ends of three pipes; /dev/null for a missing one.
    Pipes([Option<File>; 3]),
    /// It is to make a terminal of this size and hand the other side to PID 1.
    Terminal(Window),
}

/// Makes the calling process the leader of a session with this stdio.
pub fn take(stdio: &AppStdio, account: &Account, reporter: &Reporter) -> Result<()> {
    setsid().context("start a session")?;
    match stdio {
        AppStdio::Pipes(pipes) => take_pipes(pipes, account),
        AppStdio::Terminal(window) => take_terminal(*window, account, reporter),
    }
}

/// Owned pipes can be opened again by name, as /dev/stdout.
fn take_pipes(pipes: &[Option<File>; 3], account: &Account) -> Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    for pipe in pipes.iter().flatten() {
        give_to(pipe, account.uid, account.gid)?;
    }
    let [stdin, stdout, stderr] = pipes.each_ref().map(|pipe| pipe.as_ref().unwrap_or(&null));
    become_stdio(stdin, stdout, stderr)
}

fn take_terminal(window: Window, account: &Account, reporter: &Reporter) -> Result<()> {
    let flags = libc::O_NOCTTY;
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open("/dev/pts/ptmx")
        .context("open a terminal")?;
    let terminal = ioctls::open_peer(&master).context("open the app's side of its terminal")?;
    ioctls::resize(&terminal, window).context("set the size of the terminal")?;
    give_to(&terminal, account.uid, TTY_GROUP)?;
    ioctls::control_terminal(&terminal).context("take the terminal")?;
    // The first of a fresh /dev/pts.
    bind("/dev/pts/0", "/dev/console")?;
    reporter.terminal(&master)?;
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

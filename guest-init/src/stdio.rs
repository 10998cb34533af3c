//! An app's stdio on the app's side: pipes that its user owns, or a terminal of its own. Called by `launch`.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;

use anyhow::{Context, Result};
use guest_init::packets;
use guest_init::protocol::Window;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setsid};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::account::Account;
use crate::mount_table::bind;
use crate::report::Report;

/// The group of terminals in all distributions, as in the options of /dev/pts.
const TTY_GROUP: u32 = 5;

/// What the processes of a task are given.
pub enum TheirStdio {
    /// Their ends of three pipes; /dev/null for a missing one.
    Pipes([Option<File>; 3]),
    /// The first of them is to make a terminal of this size and hand the other side to PID 1, which joins it to a stream.
    NewTerminal { window: Window, stream: Rc<File> },
    /// The other side of the terminal that the first has made; their own is held, too, so that it does not hang up whenever no
    /// process has it open.
    Terminal { master: Rc<File>, _peer: File },
}

impl TheirStdio {
    /// /dev/null alone.
    pub const NONE: Self = Self::Pipes([const { None }; 3]);
}

/// What a process is in its task, and so how much of the stdio it uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The app itself: all. A terminal is its session's, and its console.
    App,
    /// A handler only writes.
    Handler,
    /// A command that enters the app: all.
    Entry,
}

/// Makes the calling process the leader of a session with this stdio.
pub fn take(stdio: &TheirStdio, kind: Kind, account: &Account, line: &OwnedFd) -> Result<()> {
    setsid().context("start a session")?;
    match stdio {
        TheirStdio::Pipes(pipes) => take_pipes(pipes, kind, account),
        TheirStdio::NewTerminal { window, .. } => {
            let master = make_terminal(*window)?;
            packets::send(line.as_fd(), &Report::Terminal, &[master.as_fd()])
                .context("hand over the terminal")?;
            take_terminal(&master, kind, account)
        }
        TheirStdio::Terminal { master, .. } => take_terminal(master, kind, account),
    }
}

/// Owned pipes can be opened again by name, as /dev/stdout.
fn take_pipes(pipes: &[Option<File>; 3], kind: Kind, account: &Account) -> Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    let [stdin, stdout, stderr] = pipes.each_ref().map(Option::as_ref);
    let pipes = [stdin.filter(|_| kind != Kind::Handler), stdout, stderr];
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
    resize(&master, window).context("set the size of the terminal")?;
    Ok(master)
}

/// Opens the other side of a pty master, which it unlocks; close-on-exec, and nobody's controlling terminal.
pub fn open_peer(master: &File) -> rustix::io::Result<File> {
    unlockpt(master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    ioctl_tiocgptpeer(master, flags).map(File::from)
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
pub fn resize(terminal: &File, window: Window) -> rustix::io::Result<()> {
    let size = Winsize {
        ws_row: window.rows,
        ws_col: window.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size)
}

fn take_terminal(master: &File, kind: Kind, account: &Account) -> Result<()> {
    let terminal = open_peer(master).context("open the app's side of its terminal")?;
    give_to(&terminal, account.uid, TTY_GROUP)?;
    if kind != Kind::Handler {
        ioctl_tiocsctty(&terminal).context("take the terminal")?;
    }
    become_stdio(&terminal, &terminal, &terminal)?;
    if kind == Kind::App {
        // The first of a fresh /dev/pts.
        bind("/dev/pts/0", "/dev/console")?;
    }
    Ok(())
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

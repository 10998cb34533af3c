//! Starts a command with the caller's surroundings: folder, environment, mask, pipes or a terminal, its own session
//! and control group.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{pipe2, setsid};

use crate::wire::command::{Command, WindowSize};

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);
nix::ioctl_write_int_bad!(set_controlling_terminal, libc::TIOCSCTTY);

/// A started command and our ends of its three streams.
pub struct Child {
    /// The process.
    pub process: process::Child,
    /// Our ends of the streams that are pipes.
    pub pipes: [Option<OwnedFd>; 3],
    /// Our end of the terminal, if one of the three is.
    pub terminal: Option<OwnedFd>,
}

/// Why a command was not executed: the exit code and a line for standard error.
pub struct Refusal {
    /// 126 or 127, as a shell would say.
    pub code: u8,
    /// Names the object and the reason.
    pub message: String,
}

/// Starts the command; the inner error is the command's own fault.
pub fn start(command: &Command, entrance: OwnedFd) -> Result<Result<Child, Refusal>> {
    if let Err(error) = fs::read_dir(&command.directory) {
        let message = format!("enter folder {}: {error}", command.directory.display());
        return Ok(Err(Refusal { code: 126, message }));
    }
    let (terminal, slave) = open_terminal(command)?.unzip();
    let mut pipes = [None, None, None];
    let mut theirs = Vec::new();
    for (number, is_terminal) in command.terminals.into_iter().enumerate() {
        theirs.push(match &slave {
            Some(slave) if is_terminal => slave.try_clone().context("copy the terminal")?,
            _ => {
                let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
                let (ours, theirs) = if number == 0 {
                    (writer, reader)
                } else {
                    (reader, writer)
                };
                fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
                pipes[number] = Some(ours);
                theirs
            }
        });
    }
    let [stdin, stdout, stderr] =
        <[OwnedFd; 3]>::try_from(theirs).map_err(|_| io::Error::other("three streams"))?;
    let spawned = prepare(command, entrance, slave)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn();
    Ok(match spawned {
        Ok(process) => Ok(Child {
            process,
            pipes,
            terminal,
        }),
        Err(error) => Err(refusal(command, &error)),
    })
}

fn refusal(command: &Command, error: &io::Error) -> Refusal {
    let name = command
        .arguments
        .first()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound => Refusal {
            code: 127,
            message: format!("{name}: not found"),
        },
        _ => Refusal {
            code: 126,
            message: format!("{name}: {error}"),
        },
    }
}

fn open_terminal(command: &Command) -> Result<Option<(OwnedFd, OwnedFd)>> {
    if !command.terminals.contains(&true) {
        return Ok(None);
    }
    let pair = openpty(Some(&winsize(command.window)), None).context("open a terminal")?;
    for end in [&pair.master, &pair.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Some((pair.master, pair.slave)))
}

fn winsize((rows, columns): WindowSize) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Tells a terminal its size; the kernel signals the processes behind it.
#[expect(unsafe_code, reason = "a terminal's size is set by an ioctl")]
pub fn resize(terminal: &OwnedFd, window: WindowSize) {
    // SAFETY: the size is a valid winsize that outlives the call.
    let _ = unsafe { set_window_size(terminal.as_raw_fd(), &winsize(window)) };
}

#[expect(
    unsafe_code,
    reason = "session, terminal and cgroup are set between fork and exec"
)]
fn prepare(command: &Command, entrance: OwnedFd, terminal: Option<OwnedFd>) -> process::Command {
    let (program, arguments) = command
        .arguments
        .split_first()
        .map_or_else(Default::default, |(p, a)| (p.clone(), a));
    let mut prepared = process::Command::new(program);
    prepared
        .args(arguments)
        .current_dir(&command.directory)
        .env_clear()
        .envs(command.environment.iter().cloned());
    let mask = Mode::from_bits_truncate(command.umask);
    let enter = move || {
        nix::unistd::write(&entrance, b"0")?;
        setsid()?;
        if let Some(terminal) = &terminal {
            // SAFETY: takes no pointer; the descriptor is open.
            unsafe { set_controlling_terminal(terminal.as_raw_fd(), 0) }?;
        }
        umask(mask);
        Ok::<(), Errno>(())
    };
    // SAFETY: this process has one thread, and the closure only makes system calls.
    unsafe { prepared.pre_exec(move || enter().map_err(io::Error::from)) };
    prepared
}

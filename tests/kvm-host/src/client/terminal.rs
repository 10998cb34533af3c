//! The caller's terminal: its size, and raw mode for as long as the command's terminal stands behind it.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::wire::command::WindowSize;

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, nix::pty::Winsize);

/// Rows and columns of the terminal behind standard input, output or error.
#[expect(unsafe_code, reason = "a terminal's size is read by an ioctl")]
pub fn window_size() -> Option<WindowSize> {
    (0..=2).find_map(|fd| {
        let mut size = nix::pty::Winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the size outlives the call, which only writes to it.
        unsafe { get_window_size(fd, &mut size) }
            .ok()
            .map(|_| (size.ws_row, size.ws_col))
    })
}

/// A terminal in raw mode; dropping it restores what was.
pub struct RawTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Keystrokes, Ctrl-C among them, go to the command's terminal as they are. Where other output of the caller
    /// shares the terminal, line ends are still translated for it.
    pub fn enter(fd: OwnedFd, translate_output: bool) -> Result<Self> {
        let before = tcgetattr(&fd).context("read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        if translate_output {
            raw.output_flags |= before.output_flags & (OutputFlags::OPOST | OutputFlags::ONLCR);
        }
        tcsetattr(&fd, SetArg::TCSADRAIN, &raw).context("set the terminal to raw mode")?;
        Ok(Self { fd, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(self.fd.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

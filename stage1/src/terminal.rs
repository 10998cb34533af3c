//! The user's terminal: its size, and raw mode for as long as an app in the guest owns it.

use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use guest_init::protocol::Window;
use nix::sys::termios::{self, SetArg, Termios};

/// The size of the terminal on stdin, if stdin and stdout are one.
pub fn window() -> Option<Window> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    #[expect(
        unsafe_code,
        reason = "no safe binding of TIOCGWINSZ among the crates used"
    )]
    // SAFETY: the ioctl writes one winsize, which is what it is given.
    let result = unsafe { libc::ioctl(io::stdin().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0).then_some(Window {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Raw mode, until dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts the terminal on stdin into raw mode.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> Result<Self> {
        let before = termios::tcgetattr(stdin()).context("read the terminal's mode")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin(), SetArg::TCSANOW, &raw)
            .context("put the terminal into raw mode")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = termios::tcsetattr(stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

fn stdin() -> BorrowedFd<'static> {
    #[expect(unsafe_code, reason = "io::stdin() borrows for a shorter time")]
    // SAFETY: descriptor 0 is open for the life of the process.
    unsafe {
        BorrowedFd::borrow_raw(0)
    }
}

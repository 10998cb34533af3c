//! The user's terminal: its size, and raw mode for as long as an app in the guest owns it.

use anyhow::{Context, Result};
use guest_init::protocol::Window;
use nix::sys::termios::{self, SetArg, Termios};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{isatty, tcgetwinsize};

/// The size of the terminal on stdin, if stdin and stdout are one.
pub fn window() -> Option<Window> {
    let size = tcgetwinsize(stdin()).ok().filter(|_| isatty(stdout()))?;
    Some(Window {
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

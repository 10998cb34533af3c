//! The signals that a client passes on instead of obeying them.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocked, and read from a descriptor: that works for signals that a shell's `&` left ignored, too.
pub struct Signals {
    descriptor: SignalFd,
}

const PASSED_ON: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

impl Signals {
    /// Blocks the signals for this thread and all that it starts, but for programs it executes.
    pub fn catch() -> Result<Self> {
        let set = SigSet::from_iter(PASSED_ON);
        set.thread_block().context("block signals")?;
        let descriptor =
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// The next signal that has come.
    pub fn next(&self) -> Result<Option<Signal>> {
        let Some(info) = self.descriptor.read_signal().context("read a signal")? else {
            return Ok(None);
        };
        Ok(Signal::try_from(info.ssi_signo.cast_signed()).ok())
    }

    /// The exit code for a signal that would have ended a program without handlers, if one has come.
    pub fn fatal(&self) -> Result<Option<u8>> {
        while let Some(signal) = self.next()? {
            if signal != Signal::SIGWINCH {
                return Ok(Some(code(signal) | 128));
            }
        }
        Ok(None)
    }
}

/// A signal's number.
pub fn code(signal: Signal) -> u8 {
    // Linux numbers them from 1 to 31.
    u8::try_from(signal as i32).unwrap_or(0)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

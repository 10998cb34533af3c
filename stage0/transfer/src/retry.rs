//! Trying again: which failures pass, how long to wait, and when others have given up.

use std::fmt;
use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use reqwest::StatusCode;

use crate::answer::passes;
use crate::patience::Patience;

/// So many new bytes make up for attempts that brought none.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Why one attempt failed.
#[derive(Debug)]
pub enum Fault {
    /// It may be otherwise next time, and not before the given time.
    Passing(anyhow::Error, Option<Duration>),
    /// It will be the same next time.
    Lasting(anyhow::Error),
}

impl Fault {
    /// What an answer without success means, whose server asks to be left alone for `asked`.
    pub fn answered(status: StatusCode, asked: Option<Duration>, error: anyhow::Error) -> Self {
        match passes(status) {
            true => Self::Passing(error, asked),
            false => Self::Lasting(error),
        }
    }

    /// A failure that stays.
    pub fn lasting(text: impl fmt::Display) -> Self {
        Self::Lasting(anyhow!("{text}"))
    }

    /// A failure that may pass.
    pub fn passing(text: impl fmt::Display) -> Self {
        Self::Passing(anyhow!("{text}"), None)
    }

    /// The error, whichever it is.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Passing(error, _) | Self::Lasting(error) => error,
        }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Lasting(error)
    }
}

impl From<reqwest::Error> for Fault {
    /// Links may hold secrets, so the error does not name them.
    fn from(error: reqwest::Error) -> Self {
        let lasts = error.is_builder()
            || error.is_redirect()
            || (error.is_connect() && !error.is_timeout() && !was_cut(&error));
        let error = anyhow::Error::new(error.without_url());
        if lasts {
            Self::Lasting(error)
        } else {
            Self::Passing(error, None)
        }
    }
}

/// Whether a connection was there and then was not.
fn was_cut(error: &reqwest::Error) -> bool {
    io_errors(error).any(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        )
    })
}

/// Whether the server is not the one that was meant.
pub fn is_distrust(error: &reqwest::Error) -> bool {
    io_errors(error)
        .filter_map(|error| error.get_ref()?.downcast_ref::<rustls::Error>())
        .any(|error| matches!(error, rustls::Error::InvalidCertificate(_)))
}

fn io_errors(error: &reqwest::Error) -> impl Iterator<Item = &io::Error> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| {
        // What an io::Error wraps is not its source.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
    .filter_map(|error| error.downcast_ref())
}

/// Tells all threads of a transfer that one of them has failed.
#[derive(Debug, Default)]
pub struct Cancel {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    /// Tells the others.
    pub fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether another has failed.
    pub fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but no longer than until it is set.
    fn wait(&self, time: Duration) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(set, time, |set| !*set);
        drop(waited);
    }
}

/// Attempts that were in vain, and the pauses between them.
pub struct Attempts<'a> {
    patience: &'a Patience,
    cancel: &'a Cancel,
    failed: u32,
    furthest: u64,
}

impl<'a> Attempts<'a> {
    /// None yet.
    pub fn new(patience: &'a Patience, cancel: &'a Cancel) -> Self {
        Self {
            patience,
            cancel,
            failed: 0,
            furthest: 0,
        }
    }

    /// So many bytes are there by now: enough new ones make up for attempts that were in vain.
    pub fn reached(&mut self, bytes: u64) {
        if bytes >= self.furthest.saturating_add(PROGRESS_BYTES) {
            self.failed = 0;
            self.furthest = bytes;
        }
    }

    /// Pauses before the next attempt.
    ///
    /// # Errors
    /// The fault's, if it lasts or there have been enough attempts.
    pub fn after(&mut self, fault: Fault) -> Result<()> {
        let (error, asked) = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Passing(error, asked) => (error, asked),
        };
        self.failed += 1;
        if self.failed >= self.patience.attempts || self.cancel.is_set() {
            return Err(error.context(format!("given up after {} attempts", self.failed)));
        }
        let doubled = self.patience.pause * 2u32.saturating_pow(self.failed - 1);
        let pause = doubled.max(asked.unwrap_or_default());
        tracing::debug!("{error:#}; trying again in {pause:?}");
        self.cancel.wait(pause.min(self.patience.longest_pause));
        Ok(())
    }

    /// Tries until it succeeds or must be given up.
    ///
    /// # Errors
    /// The last attempt's.
    pub fn persist<T>(mut self, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(fault) => self.after(fault)?,
            }
        }
    }
}

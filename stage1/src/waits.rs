//! Waiting for descriptors, as the loops of stage 1 do.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits for one of `sources`, by the events that are given for each, or until a moment; returns those that are ready, in their
/// order. `what` says for whom, should the kernel refuse. It may return early.
///
/// # Errors
/// Those of the kernel.
pub fn wait<T>(
    sources: Vec<(T, BorrowedFd<'_>, PollFlags)>,
    until: Option<Instant>,
    what: &'static str,
) -> Result<Vec<T>> {
    let polls = sources
        .iter()
        .map(|(_, fd, events)| PollFd::new(*fd, *events));
    let mut polls: Vec<_> = polls.collect();
    match poll(&mut polls, timeout(until)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).with_context(|| format!("wait for {what}")),
    }
    let polled = sources.into_iter().zip(polls);
    let ready = polled.filter(|(_, poll)| poll.any().unwrap_or(false));
    Ok(ready.map(|((source, ..), _)| source).collect())
}

/// Milliseconds until `next`, rounded up so that it has passed when the wait is over.
fn timeout(next: Option<Instant>) -> PollTimeout {
    let Some(next) = next else {
        return PollTimeout::NONE;
    };
    let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left.as_millis().min(60_000)).unwrap_or(PollTimeout::ZERO)
}

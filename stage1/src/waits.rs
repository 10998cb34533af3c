//! Waiting for descriptors, as the loops of stage 1 do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};

/// Waits for one of `waits`, or until a moment; `what` says for whom, should the kernel refuse. It may return early.
///
/// # Errors
/// Those of the kernel.
pub fn wait(waits: &mut [PollFd<'_>], until: Option<Instant>, what: &'static str) -> Result<()> {
    match poll(waits, timeout(until)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("wait for {what}")),
    }
}

/// Whether a wait has found anything there.
pub fn is_ready(wait: &PollFd<'_>) -> bool {
    wait.revents().is_some_and(|events| !events.is_empty())
}

/// Milliseconds until `next`, rounded up so that it has passed when the wait is over.
fn timeout(next: Option<Instant>) -> PollTimeout {
    let Some(next) = next else {
        return PollTimeout::NONE;
    };
    let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left.as_millis().min(60_000)).unwrap_or(PollTimeout::ZERO)
}

//! The raw edges of processes: fork, closing what was inherited, waiting. PID 1 has one thread, so a child may do anything.
#![expect(unsafe_code, reason = "fork and close_range are unsafe to call")]

use std::os::fd::RawFd;

use guest_init::protocol::Status;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork};

/// Splits the process in two: the child's id in the parent, `None` in the child.
pub fn split() -> nix::Result<Option<Pid>> {
    // SAFETY: the process has a single thread, so the child finds no lock taken.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Closes all descriptors of a child that needs none.
pub fn close_everything() {
    // SAFETY: the caller is a fresh child that uses no descriptor hereafter.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
}

/// Closes all descriptors but stdio and `kept`.
pub fn close_others(kept: RawFd) {
    let kept = libc::c_uint::try_from(kept).unwrap_or(0).max(2);
    for (first, last) in [(3, kept - 1), (kept + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: the caller is a fresh child that uses no other descriptor hereafter.
            unsafe { libc::close_range(first, last, 0) };
        }
    }
}

/// Blocks all signals, which PID 1 reads from a descriptor instead.
pub fn block_signals() -> nix::Result<()> {
    SigSet::all().thread_block()
}

/// Gives an app the signals that a fresh process has: nothing blocked, nothing ignored.
pub fn reset_signals() -> nix::Result<()> {
    for each in Signal::iterator().filter(|each| !matches!(each, Signal::SIGKILL | Signal::SIGSTOP))
    {
        // SAFETY: the default disposition runs no code of ours.
        unsafe { signal(each, SigHandler::SigDfl) }?;
    }
    SigSet::all().thread_unblock()
}

/// Reaps whatever dies, for ever; all signals are blocked.
pub fn reap_orphans() -> ! {
    let mut child_died = SigSet::empty();
    child_died.add(Signal::SIGCHLD);
    loop {
        while next_dead().is_some() {}
        let _ = child_died.wait();
    }
}

/// The next child that has died, reaped.
pub fn next_dead() -> Option<(Pid, Status)> {
    let mut status = 0;
    // nix loses a child that a real-time signal killed: it has no name for the signal.
    // SAFETY: the kernel writes one int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (Pid::from_raw(pid), ended(status)))
}

/// Sends `signal`, any of 1 to 64, to a child that has not been reaped.
pub fn kill(pid: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: both arguments are numbers.
    nix::errno::Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// What the host is told of a wait status.
fn ended(status: i32) -> Status {
    let number = |number| u8::try_from(number).unwrap_or(u8::MAX);
    match libc::WIFSIGNALED(status) {
        true => Status::Signal(number(libc::WTERMSIG(status))),
        false => Status::Code(number(libc::WEXITSTATUS(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_exit_and_signal_are_told_apart() {
        assert_eq!(ended(42 << 8), Status::Code(42));
        assert_eq!(ended(255 << 8), Status::Code(255));
        assert_eq!(ended(9), Status::Signal(9));
        assert_eq!(ended(0x80 | 6), Status::Signal(6), "with a core dump");
        assert_eq!(ended(64), Status::Signal(64));
    }
}

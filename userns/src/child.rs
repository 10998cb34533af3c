//! A child that does one thing for this process: from outside the user namespace that it enters, or while it goes on. Not a
//! thread, which a process that enters a user namespace cannot have.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, fork};

/// The child, which is to be waited for.
pub struct Child(Pid);

impl Child {
    /// Starts `work` in a child of this process, which must have a single thread. Of all that is open the child has `kept`
    /// alone: it may have to wait for longer than this process lives, whose lock and pipes then are to be free.
    ///
    /// # Errors
    /// Those of fork.
    pub fn start<F: AsRawFd>(kept: F, work: impl FnOnce(F) -> io::Result<()>) -> Result<Self> {
        #[expect(unsafe_code, reason = "dispositions are the whole process's")]
        // SAFETY: the default is no function of ours. A caller may have had it ignored: then children leave no code.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.context("reset SIGCHLD")?;
        #[expect(unsafe_code, reason = "a fork of a process that has a single thread")]
        // SAFETY: there is no other thread whose locks the child could find held.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Child => {
                let _ = close_descriptors_except(Some(kept.as_raw_fd()));
                for stdio in 0..3 {
                    let _ = close(stdio);
                }
                let code = |error: io::Error| error.raw_os_error().unwrap_or(1);
                std::process::exit(work(kept).map_or_else(code, |()| 0))
            }
            ForkResult::Parent { child } => Ok(Self(child)),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.0
    }

    /// Lets the child run before this process, where that may be: on a host with one CPU it would wait for its turn.
    pub fn put_first(&self) {
        let priority = libc::sched_param { sched_priority: 1 };
        #[expect(unsafe_code, reason = "no crate here has this call")]
        // SAFETY: `priority` is there as long as the call takes.
        unsafe {
            libc::sched_setscheduler(self.0.as_raw(), libc::SCHED_FIFO, &raw const priority);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What kept the child from its work.
    pub fn wait(self) -> Result<()> {
        match waitpid(self.0, None).context("wait for the child")? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code).into()),
            status => bail!("the child ended with {status:?}"),
        }
    }
}

/// Closes every descriptor above stdio but `kept`: what a caller left open is not the machine's business.
///
/// # Errors
/// Those of close_range.
pub fn close_descriptors_except(kept: Option<RawFd>) -> Result<()> {
    // Without one it is as if the last of stdio were it.
    let kept = u32::try_from(kept.unwrap_or(2)).context("a negative descriptor")?;
    let ranges = [3..kept, kept.saturating_add(1)..u32::MAX];
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        #[expect(
            unsafe_code,
            reason = "no safe binding of close_range among the crates used"
        )]
        // SAFETY: called before this process has opened anything of its own above stdio, or in a child that touches nothing of it.
        let result = unsafe { libc::close_range(range.start, range.end - 1, 0) };
        Errno::result(result).context("close inherited descriptors")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    /// In a process of its own with a single thread: the harness has several.
    const SELF: &str = "FAIRING_TEST_CHILD";

    #[test]
    fn child_has_only_what_it_keeps_and_its_error_is_its_parents() {
        if std::env::var_os(SELF).is_none() {
            let mut again = Command::new("/proc/self/exe");
            again.args(["--test-threads=1", "--exact"]);
            again.arg("child::tests::child_has_only_what_it_keeps_and_its_error_is_its_parents");
            let again = again.env(SELF, "1").stdout(Stdio::null()).status();
            assert!(again.expect("this program again").success());
            return;
        }
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let (kept, told) = io::pipe().expect("a pipe");
        let child = Child::start(kept, |mut kept| {
            // The end of what only the parent holds open.
            kept.read_to_end(&mut Vec::new())?;
            Err(io::Error::from_raw_os_error(libc::EXDEV))
        });
        let child = child.expect("a child");
        // It has not kept this one open.
        drop(writer);
        assert_eq!(reader.read(&mut [0]).expect("an end"), 0);
        drop(told);
        let error = child.wait().expect_err("the child's error");
        let error = error.downcast_ref::<io::Error>().expect("of the system");
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
    }
}

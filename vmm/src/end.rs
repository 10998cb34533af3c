//! How a machine ended, and the one place where that is decided: the first end wins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::event;

/// Why a machine is no longer running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest wrote this code to the end port.
    PoweredOff(u8),
    /// The guest asked the keyboard controller for a reset.
    Reset,
    /// The guest's kernel panicked, and then reset.
    Panicked,
    /// A CPU shut down: true triple fault.
    TripleFault,
    /// KVM could not go on with the guest.
    KvmFailed {
        /// What KVM said.
        reason: String,
        /// The vCPU's registers, one line a group.
        registers: String,
    },
    /// The owner told it to stop.
    Stopped,
}

/// What is left of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// The last lines of the kernel's console.
    pub last_words: String,
    /// How often vCPUs came back to us, summed over them.
    pub exits: u64,
}

/// Where the machine's end is noted, by whichever thread is first.
pub struct EndNote {
    end: OnceLock<End>,
    event: EventFd,
}

impl EndNote {
    /// Nothing noted.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            end: OnceLock::new(),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    /// Notes `end` unless there is one, and makes the event readable; what is noted.
    pub fn set(&self, end: End) -> &End {
        let noted = self.end.get_or_init(|| end);
        // Fails only when the counter would overflow: then it is readable.
        let _ = self.event.write(1);
        noted
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.end.get().is_some()
    }
}

impl AsFd for EndNote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        event::descriptor(&self.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_note_first_end_wins() {
        let note = EndNote::new().unwrap();
        assert!(!note.is_set());
        note.set(End::PoweredOff(7));
        assert_eq!(*note.set(End::Stopped), End::PoweredOff(7));
        assert!(note.is_set());
    }
}

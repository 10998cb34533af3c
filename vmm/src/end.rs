//! How a machine ended, and the one place where that is decided: the first end wins.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard};

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

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff(code) => write!(f, "powered off with code {code}"),
            Self::Reset => f.write_str("reset by the guest"),
            Self::Panicked => f.write_str("guest kernel panicked"),
            Self::TripleFault => f.write_str("triple fault"),
            Self::KvmFailed { reason, .. } => write!(f, "KVM failed: {reason}"),
            Self::Stopped => f.write_str("told to stop"),
        }
    }
}

/// What is left of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// The last lines of the kernel's console.
    pub last_words: String,
    /// Why vCPUs came back to us, summed over them.
    pub exits: ExitCounts,
}

/// Returns from KVM_RUN by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// All of them.
    pub kvm_run_returns: u64,
    /// Reads of an I/O port.
    pub port_reads: u64,
    /// Writes of an I/O port.
    pub port_writes: u64,
    /// Reads of a device register.
    pub mmio_reads: u64,
    /// Writes of a device register.
    pub mmio_writes: u64,
    /// Signals.
    pub interrupted: u64,
    /// Anything else, the end included.
    pub other: u64,
}

impl std::ops::AddAssign for ExitCounts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            kvm_run_returns,
            port_reads,
            port_writes,
            mmio_reads,
            mmio_writes,
            interrupted,
            other: rest,
        } = other;
        self.kvm_run_returns += kvm_run_returns;
        self.port_reads += port_reads;
        self.port_writes += port_writes;
        self.mmio_reads += mmio_reads;
        self.mmio_writes += mmio_writes;
        self.interrupted += interrupted;
        self.other += rest;
    }
}

/// Where the machine's end is noted, by whichever thread is first.
pub struct EndNote {
    end: Mutex<Option<End>>,
    noted: Condvar,
    event: EventFd,
}

impl EndNote {
    /// Nothing noted.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            end: Mutex::new(None),
            noted: Condvar::new(),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    /// Notes `end` unless there is one, and makes the event readable.
    pub fn set(&self, end: End) {
        self.lock().get_or_insert(end);
        self.noted.notify_all();
        // Fails only when the counter would overflow: then it is readable.
        let _ = self.event.write(1);
    }

    /// What was noted.
    pub fn get(&self) -> Option<End> {
        self.lock().clone()
    }

    /// Blocks until something is noted.
    pub fn wait(&self) {
        let mut end = self.lock();
        while end.is_none() {
            end = self
                .noted
                .wait(end)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
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
        assert_eq!(note.get(), None);
        note.set(End::PoweredOff(7));
        note.set(End::Stopped);
        assert_eq!(note.get(), Some(End::PoweredOff(7)));
    }
}

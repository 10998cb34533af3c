//! Eventfds: borrowing the descriptor of one, to wait for it with others, and how devices wait for their queues.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::device::Stop;

/// The descriptor of `event`.
pub fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    #[expect(unsafe_code, reason = "EventFd gives no borrowed descriptor")]
    // SAFETY: the descriptor is open as long as the EventFd that is borrowed.
    unsafe {
        BorrowedFd::borrow_raw(event.as_raw_fd())
    }
}

/// Waits for the kicks of a device's queues or the stop.
pub struct Wait(Epoll);

const STOP: u64 = 0;
const KICK: u64 = 1;

impl Wait {
    /// Waits for any of `kicks`, or `stop`.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new<'a>(kicks: impl IntoIterator<Item = &'a EventFd>, stop: &Stop) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let add = |descriptor, data| {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, descriptor, event)
        };
        add(stop.as_fd().as_raw_fd(), STOP)?;
        for kick in kicks {
            add(kick.as_raw_fd(), KICK)?;
        }
        Ok(Self(epoll))
    }

    /// Waits for a kick, or not at all when there is `more` to do. Whether to stop.
    pub fn stopped(&self, more: bool) -> bool {
        let mut events = [EpollEvent::default(); 4];
        let timeout = if more { 0 } else { -1 };
        match self.0.wait(timeout, &mut events) {
            Ok(count) => events.iter().take(count).any(|event| event.data() == STOP),
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        }
    }
}

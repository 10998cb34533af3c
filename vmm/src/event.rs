//! Borrowing the descriptor of an eventfd, to wait for it with others; and waiting.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::epoll::{Epoll, EpollEvent};
use vmm_sys_util::eventfd::EventFd;

/// The descriptor of `event`.
pub fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    #[expect(unsafe_code, reason = "EventFd gives no borrowed descriptor")]
    // SAFETY: the descriptor is open as long as the EventFd that is borrowed.
    unsafe {
        BorrowedFd::borrow_raw(event.as_raw_fd())
    }
}

/// Waits for events, `timeout_ms` at most, -1 = for ever; how many there are, which may be none.
///
/// # Errors
/// Those of epoll_wait.
pub fn wait(epoll: &Epoll, timeout_ms: i32, events: &mut [EpollEvent]) -> io::Result<usize> {
    match epoll.wait(timeout_ms, events) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        waited => waited,
    }
}

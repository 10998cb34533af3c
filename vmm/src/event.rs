//! Borrowing the descriptor of an eventfd, to wait for it with others.

use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// The descriptor of `event`.
pub fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    #[expect(unsafe_code, reason = "EventFd gives no borrowed descriptor")]
    // SAFETY: the descriptor is open as long as the EventFd that is borrowed.
    unsafe {
        BorrowedFd::borrow_raw(event.as_raw_fd())
    }
}

//! The end of the machine: one byte on the port that the VMM watches. `reboot` is never called: without ACPI its
//! power-off is a halt that nobody notices.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use guest_init::protocol::END_PORT;

use crate::console;

/// Ends the machine with `code`. Where the port cannot be written PID 1 exits, and the kernel's panic ends it.
pub fn end(code: u8) -> ! {
    let port = OpenOptions::new().write(true).open("/dev/port");
    let ended = port.and_then(|port| port.write_at(&[code], u64::from(END_PORT)));
    console::say(&format!("the machine did not end: {ended:?}"));
    std::process::exit(i32::from(code))
}

//! What guest-init says on the console: through the kernel's log, since there is no serial driver.

use std::fs::OpenOptions;
use std::io::Write;

/// Says one line; priority 3 is what a quiet kernel still prints. Where even that fails, nobody is left to tell.
pub fn say(line: &str) {
    let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") else {
        return;
    };
    let _ = log.write_all(format!("<3>guest-init: {}\n", line.replace('\n', " ")).as_bytes());
}

/// Sends the words of a panic the same way.
pub fn take_panics() {
    std::panic::set_hook(Box::new(|panic| say(&panic.to_string())));
}

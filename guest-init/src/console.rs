//! What guest-init says on the console: through the kernel's log, since there is no serial driver.

use std::fs;

/// Says one line; priority 3 is what a quiet kernel still prints. Where even that fails, nobody is left to tell.
pub fn say(line: &str) {
    let line = line.replace('\n', " ");
    let _ = fs::write("/dev/kmsg", format!("<3>guest-init: {line}\n"));
}

/// Sends the words of a panic the same way.
pub fn take_panics() {
    std::panic::set_hook(Box::new(|panic| say(&panic.to_string())));
}

//! The three I/O devices of the machine: the port that ends it, the keyboard controller's reset line and the console.
//! Called on vCPU threads.

use crate::bus::Bus;
use crate::end::End;
use crate::layout::{END_PORT, KEYBOARD_PORT, SERIAL_PORT, SERIAL_PORT_END};
use crate::lock::lock;

/// The keyboard controller's "pulse the reset line".
const KEYBOARD_RESET: u8 = 0xfe;

impl Bus {
    /// `data` written to `port`, one byte or several of one string instruction; what ended the machine, if this did.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Option<End> {
        match (port, data) {
            (END_PORT, [code, ..]) => return Some(End::PoweredOff(*code)),
            (KEYBOARD_PORT, [KEYBOARD_RESET, ..]) => return Some(self.reset()),
            (SERIAL_PORT..=SERIAL_PORT_END, data) => {
                let mut console = lock(&self.console);
                data.iter()
                    .for_each(|byte| console.write(port - SERIAL_PORT, *byte));
            }
            _ => {}
        }
        None
    }

    /// Fills `data` from `port`.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(match port {
            // Input buffer empty: Linux waits for that before it asks for a reset.
            KEYBOARD_PORT => 0,
            SERIAL_PORT..=SERIAL_PORT_END => lock(&self.console).read(port - SERIAL_PORT),
            _ => 0xff,
        });
    }

    /// The last lines of the console.
    pub fn last_words(&self) -> String {
        lock(&self.console).last_words()
    }

    /// A kernel that panicked resets by the same port; only its last words tell the difference.
    fn reset(&self) -> End {
        if self.last_words().contains("Kernel panic") {
            End::Panicked
        } else {
            End::Reset
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::layout::SLOTS;

    fn ports() -> Bus {
        Bus {
            console: Mutex::default(),
            slots: [const { None }; SLOTS],
        }
    }

    #[test]
    fn end_port_write_powers_off_with_its_code() {
        assert_eq!(ports().write_port(END_PORT, &[3]), Some(End::PoweredOff(3)));
        assert_eq!(ports().write_port(END_PORT, &[]), None);
    }

    #[test]
    fn keyboard_reset_is_a_panic_only_after_a_panic_message() {
        let ports = ports();
        assert_eq!(ports.write_port(KEYBOARD_PORT, &[0xfe]), Some(End::Reset));
        assert_eq!(
            ports.write_port(SERIAL_PORT, b"Kernel panic - not syncing\r\n"),
            None
        );
        assert_eq!(
            ports.write_port(KEYBOARD_PORT, &[0xfe]),
            Some(End::Panicked)
        );
        assert_eq!(ports.last_words(), "Kernel panic - not syncing\n");
    }

    #[test]
    fn keyboard_status_says_input_buffer_empty() {
        let mut data = [0xff];
        ports().read_port(KEYBOARD_PORT, &mut data);
        assert_eq!(data[0] & 2, 0);
    }
}

//! The write-only serial port that carries the kernel's early printk: its last words are kept, and copied to a writer
//! when somebody listens. Written on vCPU threads. There is no receiver, no interrupt and no FIFO.

use std::collections::VecDeque;
use std::io::Write;

/// Registers of a 16550 UART as offsets from its first port.
mod spec {
    pub const THR: u16 = 0;
    pub const LCR: u16 = 3;
    pub const LSR: u16 = 5;
    pub const LCR_DLAB: u8 = 0x80;
    /// Transmitter holding register empty.
    pub const LSR_THRE: u8 = 0x20;
}

/// Most bytes kept of the guest's console.
const LAST_WORDS_BYTES: usize = 16 << 10;

/// What the guest wrote last.
#[derive(Default)]
pub struct Console {
    last_words: VecDeque<u8>,
    line_control: u8,
    copy: Option<Box<dyn Write + Send>>,
}

impl Console {
    /// An empty console; `copy` gets every byte as it comes.
    pub fn new(copy: Option<Box<dyn Write + Send>>) -> Self {
        Self {
            copy,
            ..Self::default()
        }
    }

    /// A byte for the register at `offset`.
    pub fn write(&mut self, offset: u16, value: u8) {
        match offset {
            spec::LCR => self.line_control = value,
            // With DLAB set the first port is the baud rate, not a character.
            spec::THR if self.line_control & spec::LCR_DLAB == 0 => self.put(value),
            _ => {}
        }
    }

    /// The register at `offset`.
    pub fn read(&self, offset: u16) -> u8 {
        match offset {
            spec::LCR => self.line_control,
            spec::LSR => spec::LSR_THRE,
            _ => 0,
        }
    }

    /// The last [`LAST_WORDS_BYTES`] bytes as text, from the first whole line on when earlier ones were dropped.
    pub fn last_words(&self) -> String {
        let bytes: Vec<u8> = self
            .last_words
            .iter()
            .copied()
            .filter(|byte| *byte != b'\r')
            .collect();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if self.last_words.len() == LAST_WORDS_BYTES
            && let Some(end) = text.find('\n')
        {
            text.drain(..=end);
        }
        text
    }

    fn put(&mut self, byte: u8) {
        if self.last_words.len() == LAST_WORDS_BYTES {
            self.last_words.pop_front();
        }
        self.last_words.push_back(byte);
        // A reader that went away must not end the machine.
        if let Some(copy) = &mut self.copy
            && copy.write_all(&[byte]).is_err()
        {
            self.copy = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_text(console: &mut Console, text: &str) {
        text.bytes().for_each(|byte| console.write(spec::THR, byte));
    }

    #[test]
    fn console_baud_rate_is_no_character() {
        let mut console = Console::new(None);
        console.write(spec::LCR, 0x83);
        console.write(spec::THR, 12);
        console.write(spec::LCR, 3);
        write_text(&mut console, "a\r\nb");
        assert_eq!(console.read(spec::LCR), 3);
        assert_eq!(console.last_words(), "a\nb");
    }

    #[test]
    fn console_flooded_keeps_whole_last_lines() {
        let mut console = Console::new(None);
        for line in 0..10_000 {
            write_text(&mut console, &format!("line {line}\n"));
        }
        let words = console.last_words();
        assert!(words.len() <= LAST_WORDS_BYTES);
        assert!(words.starts_with("line "));
        assert!(words.ends_with("line 9999\n"));
    }

    #[test]
    fn console_is_always_ready_to_send() {
        assert_eq!(Console::new(None).read(spec::LSR), 0x20);
    }
}

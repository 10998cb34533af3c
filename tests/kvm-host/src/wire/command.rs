//! The command that a client asks for: what to execute and in which surroundings.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::strings;

/// Rows and columns of a terminal.
pub type WindowSize = (u16, u16);

/// A command line with the caller's surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Which of standard input, output and error are a terminal.
    pub terminals: [bool; 3],
    /// The terminal's size at the start.
    pub window: WindowSize,
    /// File mode creation mask.
    pub umask: u32,
    /// Working directory.
    pub directory: PathBuf,
    /// Program and arguments, never empty.
    pub arguments: Vec<OsString>,
    /// `NAME=value` each.
    pub environment: Vec<(OsString, OsString)>,
}

impl Command {
    /// The payload of a start frame.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend(self.terminals.map(u8::from));
        out.extend(self.window.0.to_le_bytes());
        out.extend(self.window.1.to_le_bytes());
        out.extend(self.umask.to_le_bytes());
        strings::put(&mut out, self.directory.as_os_str().as_bytes())?;
        strings::put_list(
            &mut out,
            self.arguments.iter().map(|argument| argument.as_bytes()),
        )?;
        strings::put_list(
            &mut out,
            self.environment.iter().map(|(name, _)| name.as_bytes()),
        )?;
        strings::put_list(
            &mut out,
            self.environment.iter().map(|(_, value)| value.as_bytes()),
        )?;
        Ok(out)
    }

    /// Reads a start frame's payload; fails on bytes that no client sends.
    pub fn decode(mut bytes: &[u8]) -> Result<Self> {
        let input = &mut bytes;
        let Some((head, rest)) = input.split_first_chunk::<7>() else {
            anyhow::bail!("a start frame of {} bytes", input.len());
        };
        *input = rest;
        let [first, second, third, a, b, c, d] = *head;
        let umask = strings::take_u32(input)?;
        let directory = PathBuf::from(OsString::from_vec(strings::take(input)?));
        let arguments: Vec<_> = strings::take_list(input)?
            .into_iter()
            .map(OsString::from_vec)
            .collect();
        ensure!(!arguments.is_empty(), "a start frame without a command");
        let names = strings::take_list(input)?
            .into_iter()
            .map(OsString::from_vec);
        let values = strings::take_list(input)?
            .into_iter()
            .map(OsString::from_vec);
        Ok(Self {
            terminals: [first, second, third].map(|byte| byte != 0),
            window: (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])),
            umask,
            directory,
            arguments,
            environment: names.zip(values).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn command_with_odd_strings_survives_the_wire() {
        let command = Command {
            terminals: [true, false, true],
            window: (24, 80),
            umask: 0o027,
            directory: PathBuf::from("/tmp/a b"),
            arguments: vec![
                "sh".into(),
                "".into(),
                "two words\n'\"".into(),
                OsString::from_vec(vec![0xff, 0x80]),
            ],
            environment: vec![("A".into(), "line\nline".into()), ("B".into(), "".into())],
        };
        assert_eq!(
            Command::decode(&command.encode().unwrap()).unwrap(),
            command
        );
    }

    proptest! {
        #[test]
        fn command_of_any_bytes_never_panics(bytes: Vec<u8>) {
            let _ = Command::decode(&bytes);
        }
    }
}

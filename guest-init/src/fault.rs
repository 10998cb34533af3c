//! Why an app could not be launched: made in the app's process, sent to PID 1, reported to the host.

use std::fmt::Display;

use guest_init::protocol::{Status, TaskId, ToHost};
use serde::{Deserialize, Serialize};

/// The command is not in the image, or its interpreter is not.
pub const NOT_FOUND: u8 = 127;
/// The command is there and cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// Anything else.
pub const OTHER: u8 = 254;

/// Reasons are cut here, bytes: one datagram holds any of them.
const REASON_LIMIT_BYTES: usize = 4096;

/// A launch that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// [`NOT_FOUND`], [`CANNOT_EXECUTE`] or [`OTHER`].
    pub code: u8,
    /// The chain of causes, one line.
    pub reason: String,
}

impl Fault {
    /// A fault with its reason in one line.
    pub fn new(code: u8, reason: impl Display) -> Self {
        let mut reason = reason.to_string().replace('\n', " ");
        reason.truncate(reason.floor_char_boundary(REASON_LIMIT_BYTES));
        Self { code, reason }
    }

    /// The fault of a handler that has ended otherwise than well.
    pub fn of_handler(handler: &str, status: Status) -> Self {
        match status {
            Status::Code(code) => Self::new(code, format!("{handler} handler: exit code {code}")),
            Status::Signal(signal) => Self::new(
                signal.saturating_add(128),
                format!("{handler} handler: killed by signal {signal}"),
            ),
        }
    }

    /// What the host is told when it is why `task` was not started.
    pub fn of_task(self, task: TaskId) -> ToHost {
        let Self { code, reason } = self;
        ToHost::NotStarted { task, code, reason }
    }

    /// The same fault, of a part of what was launched.
    pub fn within(self, part: &str) -> Self {
        Self::new(self.code, format!("{part}: {}", self.reason))
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::new(OTHER, format!("{error:#}"))
    }
}

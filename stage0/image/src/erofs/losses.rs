//! What could not be kept of an image.

use super::printed;

/// Losses told one by one.
const TOLD_LOSSES: usize = 20;

/// What an image held and EROFS or overlayfs cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// How many things were left out.
    pub count: u64,
    /// The first of them, each with the entry's name and the reason.
    pub first: Vec<String>,
}

impl Losses {
    /// Notes what could not be kept of the entry at `path`, or that all of it could not.
    pub(crate) fn add(&mut self, path: &[u8], what: &str) {
        self.count += 1;
        if self.first.len() < TOLD_LOSSES {
            self.first.push(format!("{}: {what}", printed(path)));
        }
    }

    /// Says on the log what could not be kept.
    pub(crate) fn tell(&self) {
        for lost in &self.first {
            tracing::warn!("left out: {lost}");
        }
    }
}

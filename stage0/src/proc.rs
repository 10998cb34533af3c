//! How the kernel's accounts of processes are read (proc(5)).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What the kernel says in the file `path`.
///
/// # Errors
/// If it does not, or what it is about has gone.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// The value of a line `Name:\tvalue`, its blanks single; nothing of one that is not there.
pub fn field(status: &str, name: &str) -> String {
    status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
        .unwrap_or_default()
}

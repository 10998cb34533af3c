//! Stage 0: the `fairing` command. Finds images, lays out pod directories, executes a stage 1 and looks after pods.
//!
//! It talks to a stage 1 only through the pod directory, argv, the environment and exit codes (crate `contract`).
//! One thread, but where a command waits for two things at once.
#![warn(missing_docs)]

mod acis;
mod app;
mod apps;
mod built;
mod cli;
mod commands;
mod directories;
mod images;
mod jail;
mod launch;
mod layout;
mod logs;
mod names;
mod networks;
mod out;
mod pods;
mod policy;
mod proc;
mod processes;
mod progress;
mod reading;
mod registries;
mod settings;
mod stage1;
mod table;
mod times;
mod usage;

use std::ffi::OsString;
use std::io::Write;

use anyhow::{Context, Result};

/// Exit code of every failure of fairing itself, as in rkt.
const FAILED: i32 = 254;

/// Runs the command line and returns the exit code; does not return where a stage 1 replaces this process.
pub fn main(argv: &[OsString]) -> i32 {
    match cli::split(argv).and_then(|(cli, apps)| commands::run(cli, &apps)) {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => print_usage(&usage),
            Err(error) => {
                warn(&error);
                FAILED
            }
        },
    }
}

/// Help and version leave with 0, wrong usage with our failure code.
fn print_usage(usage: &clap::Error) -> i32 {
    let printed = usage.print().is_ok();
    if usage.use_stderr() || !printed {
        FAILED
    } else {
        0
    }
}

/// Tells an error, as one chain on one line.
pub(crate) fn warn(error: &anyhow::Error) {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "fairing: {error:#}");
}

/// Tells something that is no error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "fairing: {text}");
}

/// Prints one line of a command's result.
pub(crate) fn print_line(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

//! `fairing completion`: what a shell is told of the command line.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Args;
use clap_complete::{Shell, generate};

use crate::cli::Cli;

/// Prints a script by which a shell completes fairing's command line
#[derive(Debug, Args)]
#[command(after_help = "For bash: fairing completion bash >/etc/bash_completion.d/fairing")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Completion {
    /// Prints the script.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn run(self) -> Result<i32> {
        // Into memory first: the generator has no errors.
        let mut script = Vec::new();
        generate(
            self.shell,
            &mut Cli::with_switches(),
            "fairing",
            &mut script,
        );
        io::stdout().write_all(&script).context("write to stdout")?;
        Ok(0)
    }
}

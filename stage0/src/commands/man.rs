//! `fairing man`: the manual pages, made of what `--help` prints.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::cli::Cli;

/// Writes the manual pages, one for each command
#[derive(Debug, Args)]
#[command(after_help = "To read one: fairing man ./man && man ./man/fairing-run.1")]
pub struct Man {
    /// Folder for the pages, made if it is missing; such as /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

impl Man {
    /// Writes the pages.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn run(self) -> Result<i32> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        clap_mangen::generate_to(Cli::with_switches(), folder)
            .with_context(|| format!("write manual pages into {}", folder.display()))?;
        Ok(0)
    }
}

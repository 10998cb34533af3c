//! `fairing image`

use anyhow::{Result, bail};
use clap::Subcommand;

use super::Context;

/// Images of the store
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Lists images
    List,
}

impl Image {
    pub fn run(self, _context: &Context) -> Result<i32> {
        bail!("not yet")
    }
}

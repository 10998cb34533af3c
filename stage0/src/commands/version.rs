//! `fairing version`.

use anyhow::Result;
use contract::image::AC_VERSION;

/// Version of the interface between the stages that this stage 0 knows.
const INTERFACE_VERSION: u32 = 6;

/// Prints the versions.
///
/// # Errors
/// If stdout is closed.
pub fn run() -> Result<i32> {
    crate::print_line(&format!(
        "fairing Version: {}\nappc Version: {AC_VERSION}\nStage 1 interface Version: {INTERFACE_VERSION}\nArchitecture: {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    ))?;
    Ok(0)
}

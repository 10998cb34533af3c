//! The emulated host's side: first process, then one process for each port, each running one command at a time.

mod cgroup;
mod child;
mod init;
mod port;
mod session;

use std::process::ExitCode;

/// The first process: sets the host up and serves; it returns, and the emulated host ends, only on a failure.
pub fn main() -> ExitCode {
    if let Err(error) = init::run() {
        eprintln!("on-kvm agent: {error:#}");
    }
    // QEMU ends at a reboot; without one the kernel would panic at the end of its first process.
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    ExitCode::FAILURE
}

//! Tries, from inside a pod, every kernel feature that ordinary userlands expect of a container host.
//!
//! Run by the system tests as a pod's app (static, as root with all capabilities) and by hand. It says nothing of speed, and nothing of devices (disks, shares and network cards have tests of their own).

mod containers;
mod events;
mod files;
mod firewall;
mod ipc;
mod memory;
mod netlink;
mod network;
mod programs;
mod raw;

use std::process::ExitCode;

use anyhow::Result;
use tests::trials::{self, Trial as Feature};

/// The only argument of a process that is started to say which PID it has.
const PRINT_PID: &str = "--print-pid";

fn main() -> Result<ExitCode> {
    if std::env::args()
        .nth(1)
        .is_some_and(|first| first == PRINT_PID)
    {
        println!("{}", std::process::id());
        return Ok(ExitCode::SUCCESS);
    }
    trials::main(&[
        files::FEATURES,
        events::FEATURES,
        memory::FEATURES,
        ipc::FEATURES,
        programs::FEATURES,
        containers::FEATURES,
        network::FEATURES,
        firewall::FEATURES,
    ])
}

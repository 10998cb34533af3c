//! `kvm-host`: runs a command on a host with KVM that is emulated on a machine without one. Called by scripts/on-kvm.
//! One program in three places: the client in front of the user, the keeper that owns one emulated host's processes,
//! and, as first process of the emulated host, the agent.

mod agent;
mod boot;
mod client;
mod host;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The emulated host could not be started, died or hung; no command of ours uses this code.
const HOST_FAILED: u8 = 253;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Runs a command on an emulated host.
    Run(client::Options),
    /// Ends kept hosts of this checkout.
    Stop(client::Place),
    /// Owns one emulated host.
    Keeper(host::Shape),
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return agent::main();
    }
    let ended = match Arguments::parse().mode {
        Mode::Run(options) => client::run(&options),
        Mode::Stop(place) => client::stop(&place).map(|()| 0),
        Mode::Keeper(shape) => host::keeper::main(&shape).map(|()| 0),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("on-kvm: {error:#}");
            ExitCode::from(HOST_FAILED)
        }
    }
}

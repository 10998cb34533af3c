//! Tries, from inside a pod, every kernel feature that ordinary userlands expect of a container host.
//!
//! Run by the system tests as a pod's app (static, as root with all capabilities) and by hand. Each feature is tried in a
//! process of its own, so that namespaces, filters and signal masks of one cannot touch the next. Prints one line a
//! feature, `ok NAME` or `FAIL NAME: reason`, and exits 1 if any failed. `kernel_features NAME…` tries only those.
//! It says nothing of speed, and nothing of devices (disks, shares and network cards have tests of their own).

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

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

/// A feature's name and the trial of it.
type Feature = (&'static str, fn() -> Result<()>);

/// The first argument of the process that tries one feature.
const TRY_ONE: &str = "--try";

/// The only argument of a process that is started to say which PID it has.
const PRINT_PID: &str = "--print-pid";

/// What a trial may take, in seconds; the kernel then ends it by SIGALRM.
const DEADLINE_SECONDS: u32 = 60;

fn features() -> impl Iterator<Item = &'static Feature> {
    [
        files::FEATURES,
        events::FEATURES,
        memory::FEATURES,
        ipc::FEATURES,
        programs::FEATURES,
        containers::FEATURES,
        network::FEATURES,
        firewall::FEATURES,
    ]
    .into_iter()
    .flatten()
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [TRY_ONE, name] => return Ok(try_here(name)),
        [PRINT_PID] => {
            println!("{}", std::process::id());
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    if let Some(unknown) = arguments
        .iter()
        .find(|name| features().all(|(known, _)| known != name))
    {
        bail!("no such feature: {unknown}");
    }
    let chosen = features()
        .filter(|(name, _)| arguments.is_empty() || arguments.iter().any(|wanted| wanted == name));
    let mut failed = false;
    for (name, _) in chosen {
        match try_apart(name) {
            Ok(()) => println!("ok {name}"),
            Err(reason) => {
                println!("FAIL {name}: {reason:#}");
                failed = true;
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Tries `name` in a process of its own, which reports the reason of a failure on its standard error.
fn try_apart(name: &str) -> Result<()> {
    let program = std::env::current_exe().context("find this program in /proc")?;
    let output = Command::new(program)
        .args([TRY_ONE, name])
        .output()
        .context("start the trial")?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(!reason.trim().is_empty(), "{}", output.status);
    bail!("{}", reason.trim());
}

fn try_here(name: &str) -> ExitCode {
    nix::unistd::alarm::set(DEADLINE_SECONDS);
    let Some((_, feature)) = features().find(|(known, _)| *known == name) else {
        eprintln!("no such feature");
        return ExitCode::FAILURE;
    };
    match feature() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason:#}");
            ExitCode::FAILURE
        }
    }
}

//! The benchmark: where the time of a pod's start goes, what an idle pod costs, how long an import takes; called by
//! `scripts/bench`, by `scripts/bench-pulls` for pulls and by `scripts/bench-networks` for networks. docs/benchmark.md tells the method.
//!
//! One program in several roles, so that all of them fit a chroot without libraries: `bench` runs the others and reports,
//! `bench count`, `bench wall`, `bench shares` and `bench networks` measure on a host with KVM, `bench work` and `bench talk` are what the
//! last two have done everywhere, and PID 1 in the peer's machine is this program, too.

mod chamber;
mod counted;
mod idle;
mod imports;
mod networks;
mod peer_init;
mod pulls;
mod report;
mod shared_work;
mod shares;
mod subject;
mod trace;
mod wall;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        peer_init::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["count", images] => print(&counted::measure(images)?),
        ["wall", images] => print(&wall::measure(images)?),
        ["shares", store, place] => print(&shares::measure(store, place)?),
        ["networks", images] => networks::measure(images),
        ["talk", host] => networks::talk(host),
        ["work", folder, asked] => print(&shared_work::run(folder, asked)?),
        ["import", images, packed] => print(&imports::measure(images, packed)?),
        ["pulls", layout, first, second] => pulls::measure(layout, first, second),
        ["report", ref inputs @ .., output] => report::write(inputs, output),
        _ => bail!("this program is called by scripts/bench, bench-pulls and bench-networks"),
    }
}

fn print(figures: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}

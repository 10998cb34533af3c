//! Emulated hosts that start and end, one after the other: 5 times, with FAIRING_LONG=1 100 times. What fails is counted
//! to the end, so that a long run says how often. Needs QEMU; fails without it.

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// One host from nothing to its end, for a command that says a word and fails.
fn start() -> Result<Duration> {
    let begin = Instant::now();
    let output = common::on_kvm()
        .args(["--", "sh", "-c", "echo up; exit 7"])
        .stdin(Stdio::null())
        .output()
        .context("run on-kvm")?;
    // A host that died and was replaced says so on stderr: that counts, too.
    let good =
        output.status.code() == Some(7) && output.stdout == b"up\n" && output.stderr.is_empty();
    ensure!(good, "{output:?}");
    Ok(begin.elapsed())
}

#[test]
fn hosts_one_after_the_other_all_start_and_end() -> Result<()> {
    let long = std::env::var("FAIRING_LONG").is_ok_and(|long| long == "1");
    let rounds = if long { 100 } else { 5 };
    let (mut times, mut failures) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        match start() {
            Ok(time) => times.push(time),
            Err(error) => failures.push(format!("start {round}: {error:#}")),
        }
    }
    times.sort_unstable();
    let count = failures.len();
    // Not by println!, whose output the harness captures.
    writeln!(
        std::io::stdout(),
        "{rounds} starts, {count} failed; median {:?}",
        times.get(times.len() / 2)
    )?;
    ensure!(failures.is_empty(), "{count} of {rounds}: {failures:#?}");
    Ok(())
}

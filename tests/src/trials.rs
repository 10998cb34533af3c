//! Programs that try what a pod offers, from inside: each trial in a process of its own, so that namespaces, filters and
//! signal masks of one cannot touch the next. They print one line a trial, `ok NAME` or `FAIL NAME: reason`, and exit 1 if any
//! failed; with names as arguments they try only those.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

/// A name and the trial of it.
pub type Trial = (&'static str, fn() -> Result<()>);

/// The first argument of the process that makes one trial.
const TRY_ONE: &str = "--try";

/// What a trial may take, in seconds; the kernel then ends it by SIGALRM.
const DEADLINE_SECONDS: u32 = 60;

/// The program's life.
///
/// # Errors
/// For a name that no trial has.
pub fn main(trials: &[&[Trial]]) -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let trials = || trials.iter().copied().flatten();
    if let [first, name] = &arguments[..]
        && first == TRY_ONE
    {
        let trial = trials().find(|(known, _)| known == name);
        return Ok(try_here(
            trial.with_context(|| format!("no such trial: {name}"))?,
        ));
    }
    if let Some(unknown) = arguments
        .iter()
        .find(|name| trials().all(|(known, _)| known != name))
    {
        bail!("no such trial: {unknown}");
    }
    let chosen = trials()
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

fn try_here((_, trial): &Trial) -> ExitCode {
    nix::unistd::alarm::set(DEADLINE_SECONDS);
    match trial() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason:#}");
            ExitCode::FAILURE
        }
    }
}

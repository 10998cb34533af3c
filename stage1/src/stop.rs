//! The `stop` entrypoint: the pod's process is told to ask its apps to end; with `--force` it is killed. The working
//! directory is the pod directory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use contract::{PodDir, PodProcess};
use nix::sys::signal::Signal;

use crate::clients::{Answer, Caller, Request};

/// How long a pod may take to hear what it is told: it never waits for its guest.
const HEARING: Duration = Duration::from_secs(10);

/// Stops the pod.
///
/// # Errors
/// When the pod does not run, or does not listen.
pub fn stop(argv: impl Iterator<Item = String>) -> Result<u8> {
    if argv.into_iter().any(|argument| argument == "--force") {
        kill()?;
    } else {
        ask()?;
    }
    Ok(0)
}

fn ask() -> Result<()> {
    let pod = Caller::come(&PodDir::new(".").socket())?;
    pod.ask(&Request::Stop, &[])?;
    if !pod.wait(Instant::now().checked_add(HEARING))? {
        bail!("the pod's process does not answer; --force ends it");
    }
    match pod.hear()? {
        Some(Answer::Done) => Ok(()),
        // A pod that ended at this moment has nothing left to be told.
        None if !contract::is_running(Path::new("."))? => Ok(()),
        None => bail!("the pod's process has too many visitors; try again, or --force"),
        Some(_) => bail!("the pod's process did not understand"),
    }
}

fn kill() -> Result<()> {
    PodProcess::of_pod(Path::new("."))?.signal(Signal::SIGKILL as i32)
}

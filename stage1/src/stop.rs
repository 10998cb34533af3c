//! The `stop` entrypoint: the pod's process is told to ask its apps to end; with `--force` it is killed. The working
//! directory is the pod directory.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use contract::{PodDir, PodProcess};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::clients::{self, Answer, Request};
use crate::packets::{self, Received};

/// How long a pod may take to hear what it is told, milliseconds: it never waits for its guest.
const HEARING_MS: u16 = 10_000;

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
    let pod = clients::come(&PodDir::new(".").socket())?;
    packets::send(pod.as_fd(), &Request::Stop, &[]).context("tell the pod to end")?;
    let mut answer = [PollFd::new(pod.as_fd(), PollFlags::POLLIN)];
    let heard = poll(&mut answer, PollTimeout::from(HEARING_MS));
    if heard.context("wait for the pod's answer")? == 0 {
        bail!("the pod's process does not answer; --force ends it");
    }
    match packets::receive(pod.as_fd())? {
        Received::Message(Answer::Stopping, _) => Ok(()),
        // A pod that ended at this moment has nothing left to be told.
        Received::End if !contract::is_running(Path::new("."))? => Ok(()),
        Received::End => bail!("the pod's process has too many visitors; try again, or --force"),
        Received::Message(..) | Received::Nothing => bail!("the pod's process did not understand"),
    }
}

fn kill() -> Result<()> {
    let path = PodDir::new(".").pid();
    let text = fs::read_to_string(path).context("read the pod's pid file; has the pod started?")?;
    let pid = text.trim().parse();
    let pid = pid.with_context(|| format!("read pid {text:?}"))?;
    PodProcess::open(Path::new("."), pid)?.signal(Signal::SIGKILL as i32)
}

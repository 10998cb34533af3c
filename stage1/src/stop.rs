//! The `stop` entrypoint: the pod's process passes SIGTERM on to its apps; with `--force` it is killed.

use std::fs;

use anyhow::{Context, Result, ensure};
use contract::PodDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Signals the pod in the working directory.
///
/// # Errors
/// When the pod has no process, or it cannot be signalled.
pub fn stop(argv: impl Iterator<Item = String>) -> Result<u8> {
    let force = argv.into_iter().any(|argument| argument == "--force");
    let path = PodDir::new(".").pid();
    let text =
        fs::read_to_string(&path).context("read the pod's pid file; has the pod started?")?;
    let pid: i32 = text
        .trim()
        .parse()
        .with_context(|| format!("read pid {text:?}"))?;
    ensure!(pid > 1, "pid {pid} in the pod's pid file is not a pod's");
    let signal = if force {
        Signal::SIGKILL
    } else {
        Signal::SIGTERM
    };
    kill(Pid::from_raw(pid), signal)
        .with_context(|| format!("send {signal} to the pod's process {pid}"))?;
    Ok(0)
}

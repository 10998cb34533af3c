//! Has the stage 1 of a pod that ended let go of what it still holds, by its `gc` entrypoint (contract section 1.5), and
//! unmounts what stage 0 had mounted for it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Pod, State};
use crate::directories;
use crate::settings::Settings;
use crate::stage1::Stage1;

/// Marks a pod that was released whole; also the lock between commands that try at once.
const MARK: &str = "released";

/// Releases an exited pod, once.
pub(super) fn release(pod: &Pod, settings: &Settings) -> Result<()> {
    match pod.state()? {
        State::Exited => release_exited(pod, settings),
        _ => Ok(()),
    }
}

/// Releases a pod that is known to have exited, once.
///
/// # Errors
/// If its stage 1 cannot clean up, or something stays mounted.
pub fn release_exited(pod: &Pod, settings: &Settings) -> Result<()> {
    let Some(mut mark) = open_mark(pod)? else {
        return Ok(());
    };
    let mut done = String::new();
    mark.read_to_string(&mut done)?;
    if done.is_empty() {
        let released = run_gc_entrypoint(pod, settings);
        // A stage 1 that fails to clean up does not keep images mounted.
        directories::unmount_all(pod.dir())?;
        released?;
        mark.write_all(b"1\n")?;
    }
    Ok(())
}

/// The mark, locked; `None` if another command is at it.
fn open_mark(pod: &Pod) -> Result<Option<File>> {
    let path = pod.path().join(MARK);
    let mark = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match mark.try_lock() {
        Ok(()) => Ok(Some(mark)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// Runs the `gc` entrypoint of a pod that has run and waits for it; a stage 1 without one holds nothing.
///
/// # Errors
/// If it cannot be run or fails.
pub(super) fn run_gc_entrypoint(pod: &Pod, settings: &Settings) -> Result<()> {
    let stage1 = Stage1::of_pod(pod)?;
    let Ok(program) = stage1.entrypoint("gc") else {
        return Ok(());
    };
    let mut command = Command::new(program);
    if settings.debug {
        command.arg("--debug");
    }
    if stage1.interface_version() >= 5 {
        command.arg("--local-config").arg(&settings.local_config);
    }
    let status = command
        .arg(pod.uuid())
        .current_dir(pod.path())
        .env("PWD", pod.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("run the gc entrypoint of pod {}", pod.uuid()))?;
    if !status.success() {
        bail!("the gc entrypoint of pod {} failed: {status}", pod.uuid());
    }
    Ok(())
}

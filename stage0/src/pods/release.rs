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
pub(super) const MARK: &str = "released";

/// Releases an exited pod, once; one that another command is at is left to it.
pub(super) fn release(pod: &Pod, settings: &Settings) -> Result<()> {
    if pod.state()? != State::Exited {
        return Ok(());
    }
    let mark = open_mark(pod)?;
    match mark.try_lock() {
        Ok(()) => release_marked(pod, mark, settings),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| locking(pod)),
    }
}

/// Releases a pod that is known to have exited, once. A command that is at it is waited for: what it runs lies in the pod's
/// directory, which the caller is about to move.
///
/// # Errors
/// If its stage 1 cannot clean up, or something stays mounted.
pub fn release_exited(pod: &Pod, settings: &Settings) -> Result<()> {
    let mark = open_mark(pod)?;
    mark.lock().with_context(|| locking(pod))?;
    release_marked(pod, mark, settings)
}

/// The same, with the mark locked.
fn release_marked(pod: &Pod, mut mark: File, settings: &Settings) -> Result<()> {
    let mut done = String::new();
    mark.read_to_string(&mut done)?;
    if !done.is_empty() {
        return Ok(());
    }
    let (released, readable) = match Stage1::of_pod(pod) {
        Ok(_) => (run_gc_entrypoint(pod, settings), Ok(())),
        Err(error) => (Ok(()), Err(error)),
    };
    // A stage 1 that fails to clean up does not keep images mounted.
    directories::unmount_all(pod.dir())?;
    released?;
    // Where nothing else tells when the pod died, its time does: that of the first look.
    let noticed = mark.metadata()?.modified()?;
    mark.write_all(b"1\n")?;
    mark.set_modified(noticed)?;
    // One that cannot be read, as after a power cut, cannot be read later either: that is told once.
    readable.with_context(|| {
        format!(
            "clean up after pod {}, whose stage 1 is lost (fairing rm removes it)",
            pod.uuid()
        )
    })
}

fn open_mark(pod: &Pod) -> Result<File> {
    let path = pod.path().join(MARK);
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))
}

fn locking(pod: &Pod) -> String {
    format!("lock {}", pod.path().join(MARK).display())
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

//! What every command does first: takes away what dead `fairing` processes left and pods that were to be removed when they
//! have exited, releases what other dead pods still hold.
//!
//! Nothing here waits: what another process is at work on is left to it.

use crate::warn;
use anyhow::Result;

use super::release::release;
use super::remove::is_to_be_removed;
use super::{Folder, Pods, remove};
use crate::settings::Settings;

/// Removes pods whose preparation or removal was cut short, and has exited pods release their networks and mounts.
///
/// What was to be removed when it has exited is kept for a command that `looks`, and may have come for that very pod.
///
/// # Errors
/// If the folders cannot be read; a single pod's failure is only reported.
pub fn sweep(pods: &Pods, settings: &Settings, looks: bool) -> Result<()> {
    for folder in [Folder::Embryo, Folder::Prepare, Folder::Garbage] {
        for pod in pods.in_folder(folder)? {
            let Some(lock) = pod.try_lock()? else {
                continue;
            };
            if let Err(error) = remove(pod, &lock, settings) {
                warn(&error);
            }
        }
    }
    for pod in pods.in_folder(Folder::Run)? {
        if !looks
            && is_to_be_removed(&pod)
            && let Some(lock) = pod.try_lock()?
        {
            if let Err(error) = remove(pod, &lock, settings) {
                warn(&error);
            }
            continue;
        }
        // What fails because another command removes the pod at the same time is no failure.
        if let Err(error) = release(&pod, settings)
            && pod.exists()
        {
            warn(&error);
        }
    }
    Ok(())
}

//! What an app that will not run again left in the machine, removed by a process that lives for nothing else. Started by
//! `Task`.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use guest_init::protocol::Left;

use crate::cgroup::Cgroup;
use crate::disks::{self, SCRATCH};
use crate::volumes;

/// Removes what an app left.
pub fn remove(left: &Left) -> Result<()> {
    let cgroup = Cgroup::of(&left.app);
    cgroup.wait_until_empty()?;
    cgroup.remove()?;
    let layers = format!("{SCRATCH}/{}", left.app);
    let volumes = left.volumes.iter().map(|name| volumes::empty(name));
    for folder in volumes.chain([layers]) {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {folder}"));
            }
            _ => {}
        }
    }
    if left.shares {
        volumes::forget_shares()?;
    }
    left.image.map_or(Ok(()), disks::forget_image)
}

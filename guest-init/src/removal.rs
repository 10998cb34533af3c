//! What an app that will not run again left in the machine, removed by a process that lives for nothing else. Started by
//! `Task::remove`.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::disks::{self, SCRATCH};
use crate::report::Reporter;
use crate::volumes;

/// What an app left.
pub struct Left {
    /// Its name, by which its cgroup and layers are found.
    pub app: String,
    /// Its image's number.
    pub image: Option<u8>,
    /// Whether it had shares.
    pub shares: bool,
    /// Empty volumes that were its own, by name.
    pub volumes: Vec<String>,
}

impl Left {
    /// Removes it, or tells why not, and exits.
    pub fn remove(&self, reporter: &Reporter) -> ! {
        match self.try_remove() {
            Ok(()) => std::process::exit(0),
            Err(error) => {
                reporter.failed(&error.into());
                std::process::exit(1)
            }
        }
    }

    fn try_remove(&self) -> Result<()> {
        let cgroup = Cgroup::of(&self.app);
        cgroup.wait_until_empty()?;
        cgroup.remove()?;
        let layers = format!("{SCRATCH}/{}", self.app);
        let volumes = self.volumes.iter().map(|name| volumes::empty(name));
        for folder in volumes.chain([layers]) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {folder}"));
                }
                _ => {}
            }
        }
        if self.shares {
            volumes::forget_shares()?;
        }
        self.image.map_or(Ok(()), disks::forget_image)
    }
}

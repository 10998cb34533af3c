//! Where an app's processes live: what every one of them is put into, and who they are. Made by `furnish`, in the app's
//! first process; used by `launch` for all others.

use std::fs::File;
use std::rc::Rc;

use anyhow::{Context, Result};
use guest_init::protocol;
use nix::sched::{CloneFlags, setns};

use crate::account::Account;
use crate::cgroup::Cgroup;

/// A furnished app.
pub struct Place {
    /// What the host said of the app.
    pub app: Rc<protocol::App>,
    /// Its cgroup.
    pub cgroup: Rc<Cgroup>,
    /// Its surroundings.
    pub room: Room,
}

/// What furnishing made.
pub struct Room {
    /// The app's mount namespace, whose root is the app's.
    pub mounts: File,
    /// Its cgroup namespace.
    pub cgroups: File,
    /// The app's own user and groups.
    pub account: Account,
}

impl Place {
    /// Moves the calling process there; its working directory is the app's root.
    pub fn enter(&self) -> Result<()> {
        // The cgroup first, while it has a name.
        self.cgroup.join()?;
        setns(&self.room.cgroups, CloneFlags::CLONE_NEWCGROUP)
            .context("enter the app's cgroups")?;
        setns(&self.room.mounts, CloneFlags::CLONE_NEWNS).context("enter the app's mounts")
    }
}

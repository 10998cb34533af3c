//! Where an app's processes live: what every one of them is put into, and who they are. `furnish` makes it, in the app's
//! first process; `launch` uses it for all others.

use std::cell::OnceCell;
use std::fs::File;

use anyhow::{Context, Result};
use guest_init::protocol::App;
use nix::sched::{CloneFlags, setns};

use crate::account::Account;
use crate::cgroup::Cgroup;

/// The place of an app.
pub struct Place {
    /// What the host said of the app.
    pub app: App,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its surroundings, once they are furnished.
    pub room: OnceCell<Room>,
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
    pub fn enter(&self) -> Result<&Room> {
        let room = self.room.get().context("its root is not made yet")?;
        // The cgroup first, while it has a name.
        self.cgroup.join()?;
        setns(&room.cgroups, CloneFlags::CLONE_NEWCGROUP).context("enter the app's cgroups")?;
        setns(&room.mounts, CloneFlags::CLONE_NEWNS).context("enter the app's mounts")?;
        Ok(room)
    }
}

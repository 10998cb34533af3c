//! An app's place, made by a process that lives for nothing else: the list of steps. Started by `Task`.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use guest_init::packets;
use guest_init::protocol::App;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gethostname;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::MountFlags;

use crate::account::{Account, Lookup};
use crate::cgroup::{self, Cgroup};
use crate::mount_table::remount_read_only;
use crate::place::Room;
use crate::report::Report;
use crate::syslog::Syslog;
use crate::{app_files, app_root, app_view, volumes};

/// Furnishes the place of `app`, and hands over what was made.
pub fn run(app: &App, cgroup: &Cgroup, syslog: Option<&Syslog>, line: &OwnedFd) -> Result<()> {
    let room = furnish(app, cgroup, syslog)?;
    let beside = [room.mounts.as_fd(), room.cgroups.as_fd()];
    packets::send(line.as_fd(), &Report::Furnished(room.account), &beside)
        .context("hand over the app's namespaces")
}

fn furnish(app: &App, cgroup: &Cgroup, syslog: Option<&Syslog>) -> Result<Room> {
    // Of the app's life before this one: an overlay cannot be mounted twice.
    cgroup.wait_until_empty()?;
    // Opened while they have names: the root to come may have no /proc.
    let own = File::open("/proc/self/ns").context("open the process's namespaces")?;
    let mut processes = cgroup.processes()?;
    unshare(CloneFlags::CLONE_NEWNS).context("make the app's mount namespace")?;
    app_root::enter(app)?;
    // After what lies on disks is mounted, which apps may not open.
    cgroup::join(&mut processes)?;
    // The namespace's root is where its maker is.
    unshare(CloneFlags::CLONE_NEWCGROUP).context("make the app's cgroup namespace")?;
    let (mounts, cgroups) = (namespace(&own, "mnt")?, namespace(&own, "cgroup")?);
    let room = |account| Room {
        mounts,
        cgroups,
        account,
    };

    if app.built_in {
        app_root::leave()?;
        return Ok(room(Account::ROOT));
    }
    // Accounts and files while the image alone is there: its links lead nowhere else.
    let account = resolve(&app.user, &app.group, &app.supplementary_gids)?;
    let hostname = gethostname().context("read the host name")?;
    app_files::complete(&hostname.to_string_lossy())?;
    app_view::complete(app.restrict_paths)?;
    syslog.map_or(Ok(()), Syslog::open)?;
    volumes::place(app)?;
    app_root::leave()?;

    let path = &app.working_directory;
    fs::create_dir_all(path).with_context(|| format!("make working directory {path}"))?;
    if app.read_only_root {
        // Last of all that writes there.
        remount_read_only("/", MountFlags::empty()).context("make the root read-only")?;
    }
    Ok(room(account))
}

fn namespace(own: &File, kind: &str) -> Result<File> {
    let opened = openat(own, kind, OFlags::CLOEXEC, Mode::empty());
    let namespace = opened.with_context(|| format!("open the {kind} namespace"))?;
    Ok(namespace.into())
}

/// Who `user` and `group` are in the image whose root the process is in.
pub fn resolve(user: &str, group: &str, supplementary_gids: &[u32]) -> Result<Account> {
    let (passwd, groups) = (
        app_files::read_accounts("/etc/passwd")?,
        app_files::read_accounts("/etc/group")?,
    );
    Lookup {
        user,
        group,
        supplementary_gids,
        passwd: &passwd,
        groups: &groups,
    }
    .resolve(app_files::owner)
}

//! The ids that an administrator lets a user have beside his own: lines `NAME:FIRST:COUNT` of /etc/subuid and /etc/subgid, and the
//! programs newuidmap and newgidmap, which read them too and have the power to map them.

use std::fs;
use std::io::{self, Error};
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Pid, Uid};

/// Maps of a user's ids: his own are root's inside, the subordinate ones follow.
pub struct Ids {
    uids: String,
    gids: String,
}

/// Those of the user `uid` with the group `gid`; none if he has none.
///
/// # Errors
/// When one of the files cannot be read.
pub fn of(uid: Uid, gid: Gid) -> Result<Option<Ids>> {
    let owner = uid.to_string();
    let name = find("/etc/passwd", |fields| fields[2] == owner)?;
    let name = name.and_then(|fields| fields.into_iter().next());
    let range = |file| -> Result<Option<String>> {
        let is_his = |field: &str| field == owner || Some(field) == name.as_deref();
        let found = find(file, |fields| is_his(fields[0]))?;
        Ok(found.map(|fields| fields[1..].join(" ")))
    };
    let ranges = range("/etc/subuid")?.zip(range("/etc/subgid")?);
    Ok(ranges.map(|(uids, gids)| Ids {
        uids: format!("0 {uid} 1 1 {uids}"),
        gids: format!("0 {gid} 1 1 {gids}"),
    }))
}

impl Ids {
    /// Sets the ids of the user namespace of the process `child`.
    ///
    /// # Errors
    /// With what the programs say.
    pub fn map(&self, child: Pid) -> io::Result<()> {
        for (program, ids) in [("newuidmap", &self.uids), ("newgidmap", &self.gids)] {
            let mut command = Command::new(program);
            command.arg(child.to_string()).args(ids.split(' '));
            let told =
                |why: String| Error::other(format!("{program} of the package uidmap: {why}"));
            let done = command.output().map_err(|error| told(error.to_string()))?;
            if !done.status.success() {
                return Err(told(
                    String::from_utf8_lossy(&done.stderr).trim().to_owned(),
                ));
            }
        }
        Ok(())
    }
}

/// The fields, three at least, of the first line of `file` that is `wanted`; a file that is not there has none.
fn find(file: &str, wanted: impl Fn(&[&str]) -> bool) -> Result<Option<Vec<String>>> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes.with_context(|| format!("read {file}"))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.len() >= 3 && wanted(fields));
    Ok(found.map(|fields| fields.into_iter().map(str::to_owned).collect()))
}

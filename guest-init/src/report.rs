//! The line from a task's process to PID 1 while it is launched: packets, and an end at a successful execve.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use guest_init::packets::{self, Received};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::fault::{Fault, OTHER};
use crate::place::Room;
use crate::process;

/// The app's end.
pub struct Reporter(OwnedFd);

/// PID 1's end; reading never waits.
pub struct Reports(OwnedFd);

/// What PID 1 hears.
pub enum Report {
    /// Nothing yet.
    Nothing,
    /// The task's terminal: the side that PID 1 holds.
    Terminal(File),
    /// The app's place is made.
    Furnished(Room),
    /// The launch failed.
    Failed(Fault),
    /// The process's own program runs, or it has died.
    Started,
}

/// What a packet says; descriptors come beside it.
#[derive(Serialize, Deserialize)]
enum Word {
    Terminal,
    Furnished(Account),
    Failed(Fault),
}

/// Starts a process that does `work` and exits; why that failed is told.
pub fn start(work: impl FnOnce(&Reporter) -> Result<(), Fault>) -> Result<(Pid, Reports)> {
    let (reports, reporter) = line()?;
    if let Some(pid) = process::split().context("start a process")? {
        return Ok((pid, reports));
    }
    let Err(fault) = work(&reporter) else {
        std::process::exit(0)
    };
    // Without PID 1 there is nobody to tell.
    let _ = reporter.send(&Word::Failed(fault.clone()), &[]);
    std::process::exit(i32::from(fault.code))
}

fn line() -> Result<(Reports, Reporter)> {
    let kind = SockType::SeqPacket;
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .context("make a socket pair")?;
    Ok((Reports(ours), Reporter(theirs)))
}

impl Reporter {
    /// Hands the terminal over.
    pub fn terminal(&self, master: &File) -> Result<()> {
        self.send(&Word::Terminal, &[master.as_fd()])
            .context("hand over the terminal")
    }

    /// Hands over what was made of the app's place.
    pub fn furnished(&self, room: &Room) -> Result<()> {
        let descriptors = [room.mounts.as_fd(), room.cgroups.as_fd()];
        self.send(&Word::Furnished(room.account.clone()), &descriptors)
            .context("hand over the app's namespaces")
    }

    /// Its number.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn send(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        packets::send(self.0.as_fd(), word, descriptors)
    }
}

impl Reports {
    /// The next report.
    pub fn next(&self) -> Report {
        match packets::receive(self.0.as_fd()).context("read the report of a launch") {
            Ok(Received::Nothing) => Report::Nothing,
            Ok(Received::End) => Report::Started,
            Ok(Received::Message(word, descriptors)) => report(word, descriptors),
            Err(error) => Report::Failed(error.into()),
        }
    }
}

fn report(word: Word, descriptors: Vec<OwnedFd>) -> Report {
    let mut files = descriptors.into_iter().map(File::from);
    match (word, files.next(), files.next()) {
        (Word::Terminal, Some(master), _) => Report::Terminal(master),
        (Word::Furnished(account), Some(mounts), Some(cgroups)) => Report::Furnished(Room {
            mounts,
            cgroups,
            account,
        }),
        (Word::Failed(fault), ..) => Report::Failed(fault),
        _ => Report::Failed(Fault::new(OTHER, "no descriptors came with a report")),
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_in_order_and_end_is_started() {
        let (reports, reporter) = line().unwrap();
        assert!(matches!(reports.next(), Report::Nothing));
        reporter
            .terminal(&File::open("/dev/null").unwrap())
            .unwrap();
        let account = Account {
            uid: 5,
            gid: 6,
            groups: vec![7; 4096],
        };
        let null = || File::open("/dev/null").unwrap();
        let (mounts, cgroups) = (null(), null());
        let room = Room {
            mounts,
            cgroups,
            account: account.clone(),
        };
        reporter.furnished(&room).unwrap();
        let fault = Fault::new(127, "\"x\": no such command\nin the image".repeat(200));
        reporter.send(&Word::Failed(fault.clone()), &[]).unwrap();
        drop(reporter);
        assert!(matches!(reports.next(), Report::Terminal(_)));
        assert!(matches!(reports.next(), Report::Furnished(heard) if heard.account == account));
        assert!(matches!(reports.next(), Report::Failed(heard) if heard == fault));
        assert!(matches!(reports.next(), Report::Started));
    }
}

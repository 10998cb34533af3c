//! The line from a task's process to PID 1 while it is launched: packets, and an end at a successful execve.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use guest_init::packets;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::fault::Fault;
use crate::process;

/// What PID 1 is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The task has a terminal: beside it the side that PID 1 holds.
    Terminal,
    /// The app's place is made, who it runs as is known: beside it its namespaces, of mounts and of cgroups.
    Furnished(Account),
    /// The launch failed.
    Failed(Fault),
}

/// Starts a process that does `work` and exits; why that failed is told. Gives its number and PID 1's end of the line, which ends
/// when the process's own program runs or it has died.
pub fn start(work: impl FnOnce(&OwnedFd) -> Result<(), Fault>) -> Result<(Pid, OwnedFd)> {
    let (ours, theirs) = line()?;
    if let Some(pid) = process::split().context("start a process")? {
        return Ok((pid, ours));
    }
    let Err(fault) = work(&theirs) else {
        std::process::exit(0)
    };
    let code = i32::from(fault.code);
    // Without PID 1 there is nobody to tell.
    let _ = packets::send(theirs.as_fd(), &Report::Failed(fault), &[]);
    std::process::exit(code)
}

/// The two ends of a line.
pub fn line() -> Result<(OwnedFd, OwnedFd)> {
    let kind = SockType::SeqPacket;
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .context("make a socket pair")
}

#[cfg(test)]
mod tests {
    use guest_init::packets::{Received, receive, send};

    use super::*;

    #[test]
    fn reports_arrive_in_order_and_then_the_end() {
        let (ours, theirs) = line().unwrap();
        let receive = || receive(ours.as_fd()).unwrap();
        assert!(matches!(receive(), Received::<Report>::Nothing));
        let account = Account {
            uid: 5,
            gid: 6,
            groups: vec![7; 4096],
        };
        let fault = Fault::new(127, "\"x\": no such command\nin the image".repeat(200));
        let null = std::fs::File::open("/dev/null").unwrap();
        let null = null.as_fd();
        for (report, beside) in [
            (Report::Terminal, &[null][..]),
            (Report::Furnished(account), &[null, null]),
            (Report::Failed(fault), &[]),
        ] {
            send(theirs.as_fd(), &report, beside).unwrap();
            let Received::Message(heard, descriptors) = receive() else {
                panic!("no report");
            };
            assert_eq!((heard, descriptors.len()), (report, beside.len()));
        }
        drop(theirs);
        assert!(matches!(receive(), Received::End));
    }
}

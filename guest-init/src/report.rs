//! The line from a task's process to PID 1 while it is launched: datagrams that close at a successful execve.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::fault::{Fault, OTHER};
use crate::place::Room;

/// Room for the largest fault as JSON, whose escapes make a byte six at most.
const DATAGRAM_BYTES: usize = 32 << 10;

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

/// What the text of a datagram says; descriptors come with it.
#[derive(Serialize, Deserialize)]
enum Word {
    Terminal,
    Furnished(Account),
    Failed(Fault),
}

/// A new line.
pub fn line() -> Result<(Reports, Reporter)> {
    let kind = SockType::SeqPacket;
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .context("make a socket pair")?;
    Ok((Reports(ours), Reporter(theirs)))
}

impl Reporter {
    /// Hands the terminal over.
    pub fn terminal(&self, master: &File) -> Result<()> {
        self.send(&Word::Terminal, &[master.as_raw_fd()])
            .context("hand over the terminal")
    }

    /// Hands over what was made of the app's place.
    pub fn furnished(&self, room: &Room) -> Result<()> {
        let descriptors = [room.mounts.as_raw_fd(), room.cgroups.as_raw_fd()];
        self.send(&Word::Furnished(room.account.clone()), &descriptors)
            .context("hand over the app's namespaces")
    }

    /// Tells why the launch failed.
    pub fn failed(&self, fault: &Fault) {
        // Without PID 1 there is nobody to tell.
        let _ = self.send(&Word::Failed(fault.clone()), &[]);
    }

    /// Its number.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn send(&self, word: &Word, descriptors: &[RawFd]) -> Result<()> {
        let json = serde_json::to_vec(word)?;
        let rights = [ControlMessage::ScmRights(descriptors)];
        let message = if descriptors.is_empty() {
            &[][..]
        } else {
            &rights
        };
        let (socket, text) = (self.0.as_raw_fd(), [IoSlice::new(&json)]);
        sendmsg::<()>(socket, &text, message, MsgFlags::empty(), None)?;
        Ok(())
    }
}

impl Reports {
    /// The next report.
    pub fn next(&self) -> Report {
        let mut bytes = [0; DATAGRAM_BYTES];
        let mut space = cmsg_space!([RawFd; 2]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags);
        let (length, files) = match received {
            Ok(received) => {
                let messages = received.cmsgs().into_iter().flatten();
                (received.bytes, messages.flat_map(files_in).collect())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Report::Nothing,
            Err(_) => (0, Vec::new()),
        };
        match length {
            0 => Report::Started,
            length => report(&bytes[..length], files),
        }
    }
}

/// What a datagram and the descriptors in it say.
fn report(json: &[u8], files: Vec<File>) -> Report {
    let mut files = files.into_iter();
    match (serde_json::from_slice(json), files.next(), files.next()) {
        (Ok(Word::Terminal), Some(master), _) => Report::Terminal(master),
        (Ok(Word::Furnished(account)), Some(mounts), Some(cgroups)) => Report::Furnished(Room {
            mounts,
            cgroups,
            account,
        }),
        (Ok(Word::Failed(fault)), ..) => Report::Failed(fault),
        (Ok(_), ..) => Report::Failed(Fault::new(OTHER, "no descriptors came with a report")),
        (Err(error), ..) => Report::Failed(Fault::from(
            anyhow::Error::from(error).context("read the report of a launch"),
        )),
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[expect(unsafe_code, reason = "a received descriptor is a bare number")]
fn files_in(message: ControlMessageOwned) -> Vec<File> {
    let ControlMessageOwned::ScmRights(descriptors) = message else {
        return Vec::new();
    };
    let own = descriptors.into_iter();
    // SAFETY: the kernel has just made these descriptors for us.
    own.map(|descriptor| unsafe { File::from_raw_fd(descriptor) })
        .collect()
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
        reporter.failed(&fault);
        drop(reporter);
        assert!(matches!(reports.next(), Report::Terminal(_)));
        assert!(matches!(reports.next(), Report::Furnished(heard) if heard.account == account));
        assert!(matches!(reports.next(), Report::Failed(heard) if heard == fault));
        assert!(matches!(reports.next(), Report::Started));
    }
}

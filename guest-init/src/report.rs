//! The line from an app's process to PID 1 while the app is launched: datagrams that close at a successful execve.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::fault::Fault;

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
    /// The app's terminal: the side that PID 1 holds.
    Terminal(File),
    /// The launch failed.
    Failed(Fault),
    /// The app's own program runs.
    Started,
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
        let rights = [master.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&rights)];
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(b"t")],
            &message,
            MsgFlags::empty(),
            None,
        )
        .context("hand over the terminal")?;
        Ok(())
    }

    /// Tells why the launch failed.
    pub fn failed(&self, fault: &Fault) {
        let json = serde_json::to_vec(fault).unwrap_or_default();
        // Without PID 1 there is nobody to tell.
        let _ = sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(&json)],
            &[],
            MsgFlags::empty(),
            None,
        );
    }
}

impl Reports {
    /// The next report.
    pub fn next(&self) -> Report {
        let mut bytes = [0; DATAGRAM_BYTES];
        let mut space = cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, terminal) =
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(received) => (
                    received.bytes,
                    received.cmsgs().ok().and_then(|mut messages| {
                        messages.find_map(|message| terminal_in(&message))
                    }),
                ),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {
                    return Report::Nothing;
                }
                Err(_) => (0, None),
            };
        match (length, terminal) {
            (0, _) => Report::Started,
            (_, Some(terminal)) => Report::Terminal(terminal),
            (length, None) => Report::Failed(fault_in(&bytes[..length])),
        }
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn fault_in(json: &[u8]) -> Fault {
    serde_json::from_slice(json).unwrap_or_else(|error| {
        Fault::from(anyhow::Error::from(error).context("read the report of a launch"))
    })
}

#[expect(unsafe_code, reason = "a received descriptor is a bare number")]
fn terminal_in(message: &ControlMessageOwned) -> Option<File> {
    let ControlMessageOwned::ScmRights(descriptors) = message else {
        return None;
    };
    // SAFETY: the kernel has just made this descriptor for us; there is room for one alone.
    descriptors
        .first()
        .map(|descriptor| unsafe { File::from_raw_fd(*descriptor) })
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
        let fault = Fault::new(127, "\"x\": no such command\nin the image".repeat(200));
        reporter.failed(&fault);
        drop(reporter);
        assert!(matches!(reports.next(), Report::Terminal(_)));
        assert!(matches!(reports.next(), Report::Failed(heard) if heard == fault));
        assert!(matches!(reports.next(), Report::Started));
    }
}

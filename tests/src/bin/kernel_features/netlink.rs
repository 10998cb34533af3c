//! Netlink requests: plain bytes built here, sent over one socket, each awaiting the kernel's acknowledgement.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;

/// A netlink socket of one protocol.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket that talks to the kernel.
    pub fn open(protocol: SockProtocol) -> Result<Self> {
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .context("open a netlink socket")?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("bind a netlink socket")?;
        Ok(Self(descriptor))
    }

    /// Sends the messages at once and awaits an acknowledgement for each that `message` made.
    pub fn request(&self, messages: &[Vec<u8>]) -> Result<()> {
        send(self.0.as_raw_fd(), &messages.concat(), MsgFlags::empty())
            .context("send a netlink request")?;
        let wanted = messages
            .iter()
            .filter(|message| asks_for_answer(message))
            .count();
        for _ in 0..wanted {
            self.answer()?;
        }
        Ok(())
    }

    /// Reads up to the next acknowledgement, error or end of a list; what is listed before it does not matter here.
    fn answer(&self) -> Result<()> {
        loop {
            let mut bytes = [0; 16384];
            let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())
                .context("receive a netlink answer")?;
            if let Some(code) = verdict(&bytes[..length]) {
                ensure!(
                    code == 0,
                    "{}",
                    nix::errno::Errno::from_raw(code.saturating_neg())
                );
                return Ok(());
            }
        }
    }
}

/// The code of the first verdict among the messages: 0 or a negative error number.
fn verdict(mut messages: &[u8]) -> Option<i32> {
    while let Some((header, body)) = messages.split_first_chunk::<HEADER_BYTES>() {
        let [a, b, c, d, low, high, ..] = *header;
        if matches!(u16::from_ne_bytes([low, high]), NLMSG_ERROR | NLMSG_DONE) {
            return body.first_chunk().map(|code| i32::from_ne_bytes(*code));
        }
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d]))
            .ok()?
            .max(HEADER_BYTES);
        messages = messages.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn asks_for_answer(message: &[u8]) -> bool {
    message
        .get(6)
        .is_some_and(|flags| u16::from(*flags) & NLM_F_ACK != 0)
}

/// A request that creates what it names and is acknowledged.
pub fn create(kind: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    message(
        kind,
        NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
        header,
        attributes,
    )
}

/// A request for one thing, acknowledged after it.
pub fn get(kind: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    message(kind, NLM_F_REQUEST | NLM_F_ACK, header, attributes)
}

/// A request for a list.
pub fn list(kind: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    message(
        kind,
        NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
        header,
        attributes,
    )
}

/// A message that is not acknowledged, as those that begin and end a batch.
pub fn bare(kind: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    message(kind, NLM_F_REQUEST, header, attributes)
}

fn message(kind: u16, flags: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = [header, &attributes.concat()].concat();
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([0; 8]); // sequence and port
    bytes.extend(body);
    bytes
}

/// An attribute, padded to 4 bytes.
pub fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds attributes.
pub fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &attributes.concat())
}

/// An attribute that is a terminated string.
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

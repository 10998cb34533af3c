//! The socket, and the exchange of one request and its answers.

use std::convert::Infallible;
use std::io;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A message behind its header. Not the crate's enum of all messages, whose code is over a megabyte in each program, and in the
/// machine not its attributes either.
pub(crate) struct Body {
    /// `RTM_*`.
    kind: u16,
    /// What it says.
    pub(crate) bytes: Vec<u8>,
}

impl Body {
    pub(crate) fn new(kind: u16, message: &impl Emitable) -> Self {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        Self { kind, bytes }
    }

    /// A header and attributes of its kind.
    pub(crate) fn with(kind: u16, header: &impl Emitable, attributes: &[DefaultNla]) -> Self {
        let mut body = Self::new(kind, header);
        body.bytes.extend(Self::new(kind, &attributes).bytes);
        body
    }
}

impl NetlinkSerializable for Body {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Body {
    type Error = Infallible;
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let (kind, bytes) = (header.message_type, payload.to_vec());
        Ok(Self { kind, bytes })
    }
}

/// A socket to the kernel's network, of the network namespace that its maker was in.
pub struct Netlink(Socket);

/// Of something that is to be made, and not to be there.
pub(crate) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Of one thing more of its kind.
pub(crate) const APPEND: u16 = NLM_F_CREATE | NLM_F_APPEND;

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    /// Those of socket(2) and connect(2).
    pub fn open() -> Result<Self> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            io::Result::Ok(socket)
        };
        open().map(Self).context("open a netlink socket")
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Socket {
        &self.0
    }

    /// Has something done.
    pub(crate) fn change(&self, request: Body, flags: u16) -> Result<()> {
        self.exchange(request, NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one thing.
    pub(crate) fn get(&self, request: Body) -> Result<Body> {
        let mut answers = self.exchange(request, NLM_F_ACK)?;
        answers.pop().context("the kernel has no answer")
    }

    /// Asks for all there are.
    pub(crate) fn list(&self, request: Body) -> Result<Vec<Body>> {
        self.exchange(request, NLM_F_DUMP)
    }

    fn exchange(&self, request: Body, flags: u16) -> Result<Vec<Body>> {
        let payload = NetlinkPayload::InnerMessage(request);
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).context("send a request")?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full().context("read an answer")?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Body>::deserialize(rest);
                let answer = answer.context("understand an answer of the kernel")?;
                let length = usize::try_from(answer.header.length)?.next_multiple_of(ALIGNMENT);
                rest = rest.get(length..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(_) => return Err(error.to_io().into()),
                    },
                    _ => bail!("an answer of the kernel of another kind"),
                }
            }
        }
    }
}

/// NLMSG_ALIGNTO.
const ALIGNMENT: usize = 4;

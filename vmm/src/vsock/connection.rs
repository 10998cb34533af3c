//! The state of one stream connection: credit both ways, the bytes the host's socket did not take, and which
//! directions have ended. A plain value: it is told of packets and of what the socket did, and says what is due. It
//! touches no socket, no queue and no guest memory.
//!
//! Virtio 1.2, 5.10.6.3 (buffer space management) and 5.10.6.6 (stream sockets).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::Wrapping;

use super::packet::Header;
use super::spec::{
    VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_RST,
    VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE,
    VIRTIO_VSOCK_SHUTDOWN_F_SEND,
};

/// The receive buffer granted to the guest for each connection, bytes.
pub const BUF_ALLOC: u32 = 256 * 1024;

/// The guest hears of freed space when this many bytes of it are news, bytes.
const NEWS: u32 = BUF_ALLOC / 4;

/// What to do with a payload of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It goes to the host, by [`Connection::keep`].
    Take,
    /// The host takes no more: it is dropped.
    Discard,
    /// The guest has overrun its credit, or sends after it said that it would not.
    Violation,
}

/// What is due on the host's socket, or to the connection as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// shutdown(2) of the sending direction.
    ShutWrite,
    /// shutdown(2) of the receiving direction.
    ShutRead,
    /// Both sides are done: confirm by a reset, then forget it.
    Reset,
    /// The guest has reset it already, and the host has all its bytes: forget it.
    Forget,
}

/// One connection that the guest asked for and the host took.
#[derive(Debug, Default)]
pub struct Connection {
    /// The last header that came: whom to answer, and the guest's credit.
    guest: Header,
    unwritten: VecDeque<u8>,
    forwarded: Wrapping<u32>,
    announced: Wrapping<u32>,
    credit_asked: bool,
    sent: Wrapping<u32>,
    answered: bool,
    guest_shut: u32,
    guest_gone: bool,
    host_shut: u32,
    host_shut_told: u32,
    write_shut: bool,
    read_shut: bool,
}

impl Connection {
    /// The connection of this request, whose response is due.
    pub fn accepted(guest: Header) -> Self {
        Self {
            guest,
            ..Self::default()
        }
    }

    /// Every packet of the guest carries its credit.
    pub fn credit(&mut self, guest: Header) {
        self.guest = guest;
    }

    /// Its two ends, the guest's and the host's; both context IDs are constant.
    pub fn ports(&self) -> (u32, u32) {
        (self.guest.src_port, self.guest.dst_port)
    }

    /// The guest wants to know its credit.
    pub fn credit_requested(&mut self) {
        self.credit_asked = true;
    }

    /// The guest sends a payload of `len` bytes.
    pub fn admit(&mut self, len: u32) -> Admission {
        let used = u32::try_from(self.unwritten.len()).unwrap_or(u32::MAX);
        if self.guest_shut & VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0
            || used.checked_add(len).is_none_or(|used| used > BUF_ALLOC)
        {
            return Admission::Violation;
        }
        if self.host_shut & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0 {
            self.forwarded += len;
            return Admission::Discard;
        }
        Admission::Take
    }

    /// Keeps an admitted payload for the socket.
    pub fn keep(&mut self, mut payload: impl Read) {
        // A payload was found whole.
        let _ = io::copy(&mut payload, &mut self.unwritten);
    }

    /// What the socket has not taken yet, in order.
    pub fn unwritten(&self) -> (&[u8], &[u8]) {
        self.unwritten.as_slices()
    }

    /// Whether bytes wait for the socket.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The socket took the first `bytes` of the unwritten.
    pub fn wrote(&mut self, bytes: usize) {
        self.unwritten.drain(..bytes.min(self.unwritten.len()));
        self.forwarded += count(bytes);
        if self.unwritten.is_empty() {
            self.unwritten = VecDeque::new();
        }
    }

    /// The host's end will never take another byte.
    pub fn host_refuses(&mut self) {
        self.host_shut |= VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE;
        self.forwarded += count(self.unwritten.len());
        self.unwritten = VecDeque::new();
    }

    /// The host's end will never give another byte.
    pub fn host_ended(&mut self) {
        self.host_shut |= VIRTIO_VSOCK_SHUTDOWN_F_SEND;
    }

    /// How many bytes may be read from the socket and sent to the guest now.
    pub fn to_read(&self) -> u32 {
        if !self.answered || self.is_read_over() {
            return 0;
        }
        let in_flight = self.sent - Wrapping(self.guest.fwd_cnt);
        self.guest.buf_alloc.saturating_sub(in_flight.0)
    }

    /// The direction from host to guest has ended, on whichever side.
    pub fn is_read_over(&self) -> bool {
        self.guest_gone
            || self.host_shut & VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0
            || self.guest_shut & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0
    }

    /// Nothing more will be read, yet the host may still go away, and the guest is to hear of it.
    pub fn awaits_hangup(&self) -> bool {
        self.is_read_over()
            && !self.has_unwritten()
            && self.host_shut & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE == 0
    }

    /// The packet of a payload of so many bytes, which is taken as sent.
    pub fn payload(&mut self, bytes: usize) -> Header {
        self.sent += count(bytes);
        Header {
            len: count(bytes),
            ..self.packet(VIRTIO_VSOCK_OP_RW)
        }
    }

    /// The guest has sent VIRTIO_VSOCK_OP_SHUTDOWN.
    pub fn guest_shuts(&mut self, flags: u32) {
        self.guest_shut |= flags & (VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE | VIRTIO_VSOCK_SHUTDOWN_F_SEND);
    }

    /// The guest has reset the connection. What it sent before still goes to the host: Linux resets a closed
    /// connection whose last bytes a slow reader has not taken within 8 seconds.
    pub fn guest_resets(&mut self) {
        self.guest_gone = true;
    }

    /// What tells the guest that the connection is gone, if it knows it.
    pub fn reset(&self) -> Option<Header> {
        (!self.guest_gone).then(|| self.guest.answer(VIRTIO_VSOCK_OP_RST))
    }

    /// What is to be done next, until `None`.
    pub fn due(&mut self) -> Option<Due> {
        let drained = self.unwritten.is_empty();
        if self.guest_gone {
            return drained.then_some(Due::Forget);
        }
        let sends_no_more = self.guest_shut & VIRTIO_VSOCK_SHUTDOWN_F_SEND != 0;
        let receives_no_more = self.guest_shut & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE != 0;
        if drained && sends_no_more && receives_no_more {
            return Some(Due::Reset);
        }
        if drained && sends_no_more && !self.write_shut {
            self.write_shut = true;
            return Some(Due::ShutWrite);
        }
        if receives_no_more && !self.read_shut {
            self.read_shut = true;
            return Some(Due::ShutRead);
        }
        None
    }

    /// Whether [`Connection::next_control`] has something.
    pub fn owes_control(&self) -> bool {
        !self.guest_gone
            && (!self.answered || self.host_shut != self.host_shut_told || self.owes_credit())
    }

    /// The next control packet, which is taken as sent.
    pub fn next_control(&mut self) -> Option<Header> {
        if !self.owes_control() {
            return None;
        }
        let mut header = self.packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
        if !self.answered {
            self.answered = true;
            header.op = VIRTIO_VSOCK_OP_RESPONSE;
        } else if self.host_shut != self.host_shut_told {
            self.host_shut_told = self.host_shut;
            header.op = VIRTIO_VSOCK_OP_SHUTDOWN;
            header.flags = self.host_shut;
        }
        Some(header)
    }

    /// The header of a packet that is being sent; each tells the credit.
    fn packet(&mut self, op: u16) -> Header {
        self.announced = self.forwarded;
        self.credit_asked = false;
        Header {
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.forwarded.0,
            ..self.guest.answer(op)
        }
    }

    fn owes_credit(&self) -> bool {
        let news = (self.forwarded - self.announced).0;
        self.credit_asked || (news >= NEWS && self.guest_shut & VIRTIO_VSOCK_SHUTDOWN_F_SEND == 0)
    }
}

fn count(bytes: usize) -> u32 {
    // At most BUF_ALLOC bytes are ever admitted at a time, and fewer sent.
    u32::try_from(bytes).unwrap_or(BUF_ALLOC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GUEST_BUF_ALLOC: u32 = 100_000;

    /// A packet that tells the guest's credit.
    fn credit(buf_alloc: u32, fwd_cnt: u32) -> Header {
        Header {
            buf_alloc,
            fwd_cnt,
            ..Header::default()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        GuestSends(u32),
        HostTakes(usize),
        HostSends(u32),
        GuestReads(u32),
        GuestAsksCredit,
        GuestShuts(u32),
        HostEnds,
        HostRefuses,
        GuestResets,
        Controls,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..BUF_ALLOC).prop_map(Step::GuestSends),
            8 => (0..300_000usize).prop_map(Step::HostTakes),
            8 => (0..300_000u32).prop_map(Step::HostSends),
            8 => (0..300_000u32).prop_map(Step::GuestReads),
            2 => Just(Step::GuestAsksCredit),
            1 => (0..=3u32).prop_map(Step::GuestShuts),
            1 => Just(Step::HostEnds),
            1 => Just(Step::HostRefuses),
            1 => Just(Step::GuestResets),
            8 => Just(Step::Controls),
        ]
    }

    /// Both peers, who keep to the rules, and the socket between the connection and the host.
    struct Peers {
        connection: Connection,
        guest_sent: u32,
        guest_knows: Header,
        guest_shut: u32,
        guest_reset: bool,
        guest_unread: u32,
        guest_fwd: u32,
        host_got: u32,
        host_refuses: bool,
        socket_room: usize,
        shutdown_heard: u32,
        over: Option<Due>,
    }

    impl Peers {
        fn new() -> Self {
            let guest = credit(GUEST_BUF_ALLOC, 0);
            let mut peers = Self {
                connection: Connection::accepted(guest),
                guest_sent: 0,
                guest_knows: Header::default(),
                guest_shut: 0,
                guest_reset: false,
                guest_unread: 0,
                guest_fwd: 0,
                host_got: 0,
                host_refuses: false,
                socket_room: 0,
                shutdown_heard: 0,
                over: None,
            };
            peers.controls();
            peers
        }

        fn take(&mut self, step: &Step) {
            if self.over.is_some() {
                return;
            }
            match *step {
                Step::GuestSends(bytes) if self.guest_shut & 2 == 0 && !self.guest_reset => {
                    self.guest_sends(bytes);
                }
                Step::HostTakes(bytes) => {
                    self.socket_room += bytes;
                    self.flush();
                }
                Step::HostSends(bytes) => {
                    let sent = bytes.min(self.connection.to_read());
                    self.guest_knows = self.connection.payload(sent as usize);
                    self.guest_unread += sent;
                    assert!(
                        self.guest_unread <= GUEST_BUF_ALLOC,
                        "guest's buffer overrun"
                    );
                }
                Step::GuestReads(bytes) if !self.guest_reset => {
                    let read = bytes.min(self.guest_unread);
                    self.guest_unread -= read;
                    self.guest_fwd = self.guest_fwd.wrapping_add(read);
                    self.connection
                        .credit(credit(GUEST_BUF_ALLOC, self.guest_fwd));
                }
                Step::GuestAsksCredit if !self.guest_reset => self.connection.credit_requested(),
                Step::GuestShuts(flags) if !self.guest_reset => {
                    self.guest_shut |= flags;
                    self.connection.guest_shuts(flags);
                }
                Step::HostEnds => self.connection.host_ended(),
                Step::HostRefuses => {
                    self.host_refuses = true;
                    self.connection.host_refuses();
                }
                Step::GuestResets => {
                    self.guest_reset = true;
                    self.connection.guest_resets();
                }
                Step::Controls => self.controls(),
                _ => {}
            }
            self.dues();
        }

        fn guest_sends(&mut self, bytes: u32) {
            let in_flight = self.guest_sent.wrapping_sub(self.guest_knows.fwd_cnt);
            let len = bytes.min(self.guest_knows.buf_alloc - in_flight);
            match self.connection.admit(len) {
                Admission::Take => {
                    let payload: Vec<u8> = (0..len)
                        .map(|at| pattern(self.guest_sent.wrapping_add(at)))
                        .collect();
                    self.connection.keep(&payload[..]);
                    self.flush();
                }
                Admission::Discard => assert!(self.host_refuses),
                Admission::Violation => panic!("a guest within its credit was refused"),
            }
            self.guest_sent = self.guest_sent.wrapping_add(len);
        }

        fn flush(&mut self) {
            let (first, second) = self.connection.unwritten();
            let mut bytes = [first, second].concat();
            bytes.truncate(self.socket_room);
            self.host_takes(&bytes);
            self.connection.wrote(bytes.len());
        }

        fn host_takes(&mut self, bytes: &[u8]) {
            for byte in bytes {
                assert_eq!(*byte, pattern(self.host_got), "byte lost or out of order");
                self.host_got += 1;
            }
            self.socket_room -= bytes.len();
        }

        fn controls(&mut self) {
            while let Some(control) = self.connection.next_control() {
                assert!(
                    !self.guest_reset,
                    "packet for a connection the guest has reset"
                );
                self.guest_knows = control;
                if control.op == VIRTIO_VSOCK_OP_SHUTDOWN {
                    self.shutdown_heard = control.flags;
                }
            }
        }

        fn dues(&mut self) {
            assert!(self.connection.unwritten.len() <= BUF_ALLOC as usize);
            while let Some(due) = self.connection.due() {
                let drained = self.host_refuses || self.host_got == self.guest_sent;
                match due {
                    Due::ShutWrite => assert!(drained && self.guest_shut & 2 != 0),
                    Due::ShutRead => assert!(self.guest_shut & 1 != 0),
                    Due::Reset => assert!(drained && self.guest_shut == 3 && !self.guest_reset),
                    Due::Forget => assert!(drained && self.guest_reset),
                }
                if matches!(due, Due::Reset | Due::Forget) {
                    self.over = Some(due);
                    return;
                }
            }
        }
    }

    fn pattern(at: u32) -> u8 {
        at.wrapping_mul(2_654_435_761).to_be_bytes()[0]
    }

    proptest! {
        #[test]
        fn connection_of_honest_peers_loses_nothing_and_never_stalls(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut peers = Peers::new();
            for step in &steps {
                peers.take(step);
            }
            peers.take(&Step::HostTakes(usize::MAX / 2));
            if peers.over.is_none() {
                peers.controls();
            }
            prop_assert!(peers.host_refuses || peers.host_got == peers.guest_sent);
            if peers.over.is_none() {
                prop_assert_eq!(peers.shutdown_heard, peers.connection.host_shut);
                if peers.guest_shut & 2 == 0 {
                    let in_flight = peers.guest_sent.wrapping_sub(peers.guest_knows.fwd_cnt);
                    prop_assert!(in_flight < NEWS, "guest starved of credit: {}", in_flight);
                }
            }
        }

        #[test]
        fn connection_of_hostile_guest_buffers_no_more_than_granted(
            lens in prop::collection::vec(any::<u32>().prop_map(|len| len >> (len % 32)), 1..60),
            credits in prop::collection::vec(any::<(u32, u32)>(), 1..60),
        ) {
            let mut connection = Connection::accepted(Header::default());
            for (len, (buf_alloc, fwd_cnt)) in lens.into_iter().zip(credits) {
                connection.credit(credit(buf_alloc, fwd_cnt));
                prop_assert!(connection.to_read() <= buf_alloc);
                if connection.admit(len) == Admission::Take {
                    connection.keep(&vec![0; len as usize][..]);
                }
                prop_assert!(connection.unwritten.len() <= BUF_ALLOC as usize);
                connection.next_control();
            }
        }
    }

    #[test]
    fn connection_before_its_response_reads_nothing() {
        let mut connection = Connection::accepted(credit(10, 0));
        assert_eq!(connection.to_read(), 0);
        let response = connection.next_control().map(|control| control.op);
        assert_eq!(response, Some(VIRTIO_VSOCK_OP_RESPONSE));
        assert_eq!(connection.to_read(), 10);
    }

    #[test]
    fn payload_after_shutdown_is_a_violation() {
        let mut connection = Connection::accepted(Header::default());
        connection.guest_shuts(VIRTIO_VSOCK_SHUTDOWN_F_SEND);
        assert_eq!(connection.admit(1), Admission::Violation);
    }

    #[test]
    fn payload_over_credit_is_a_violation() {
        let mut connection = Connection::accepted(Header::default());
        assert_eq!(connection.admit(BUF_ALLOC), Admission::Take);
        connection.keep(&vec![0; BUF_ALLOC as usize][..]);
        assert_eq!(connection.admit(1), Admission::Violation);
    }
}

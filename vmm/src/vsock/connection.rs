//! The state of one stream connection: credit both ways, the bytes the host's socket did not take, and which
//! directions have ended. A plain value: it is told of packets and of what the socket did, and says what is due. It
//! touches no socket, no queue and no guest memory.
//!
//! Virtio 1.2, 5.10.6.3 (buffer space management) and 5.10.6.6 (stream sockets).

use std::collections::VecDeque;
use std::num::Wrapping;

use super::spec::{
    VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_SHUTDOWN,
    VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE, VIRTIO_VSOCK_SHUTDOWN_F_SEND,
};

/// The receive buffer granted to the guest for each connection, bytes.
pub const BUF_ALLOC: u32 = 256 * 1024;

/// The guest hears of freed space when this many bytes of it are news, bytes.
const NEWS: u32 = BUF_ALLOC / 4;

/// `buf_alloc` and `fwd_cnt` of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Receive buffer, bytes.
    pub buf_alloc: u32,
    /// Bytes taken out of it, modulo 2^32.
    pub fwd_cnt: u32,
}

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

/// A control packet that is due to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// VIRTIO_VSOCK_OP_*.
    pub op: u16,
    /// Flags of the header.
    pub flags: u32,
}

/// One connection that the guest asked for and the host took.
#[derive(Debug)]
pub struct Connection {
    unwritten: VecDeque<u8>,
    forwarded: Wrapping<u32>,
    announced: Wrapping<u32>,
    credit_asked: bool,
    guest: Credit,
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
    /// A connection whose response is due. `guest` is the credit in the request.
    pub fn accepted(guest: Credit) -> Self {
        Self {
            unwritten: VecDeque::new(),
            forwarded: Wrapping(0),
            announced: Wrapping(0),
            credit_asked: false,
            guest,
            sent: Wrapping(0),
            answered: false,
            guest_shut: 0,
            guest_gone: false,
            host_shut: 0,
            host_shut_told: 0,
            write_shut: false,
            read_shut: false,
        }
    }

    /// Every packet of the guest carries its credit.
    pub fn credit(&mut self, guest: Credit) {
        self.guest = guest;
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

    /// Keeps admitted bytes for the socket.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.unwritten.extend(bytes);
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

    /// `bytes` were read and are being sent.
    pub fn read(&mut self, bytes: u32) {
        self.sent += bytes;
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

    /// Whether the guest knows the connection no longer.
    pub fn is_guest_gone(&self) -> bool {
        self.guest_gone
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
    pub fn next_control(&mut self) -> Option<Control> {
        if !self.owes_control() {
            return None;
        }
        if !self.answered {
            self.answered = true;
            return Some(Control {
                op: VIRTIO_VSOCK_OP_RESPONSE,
                flags: 0,
            });
        }
        if self.host_shut != self.host_shut_told {
            self.host_shut_told = self.host_shut;
            return Some(Control {
                op: VIRTIO_VSOCK_OP_SHUTDOWN,
                flags: self.host_shut,
            });
        }
        Some(Control {
            op: VIRTIO_VSOCK_OP_CREDIT_UPDATE,
            flags: 0,
        })
    }

    /// The credit for the header of a packet that is being sent.
    pub fn announce(&mut self) -> Credit {
        self.announced = self.forwarded;
        self.credit_asked = false;
        Credit {
            buf_alloc: BUF_ALLOC,
            fwd_cnt: self.forwarded.0,
        }
    }

    fn owes_credit(&self) -> bool {
        let news = (self.forwarded - self.announced).0;
        self.credit_asked || (news >= NEWS && self.guest_shut & VIRTIO_VSOCK_SHUTDOWN_F_SEND == 0)
    }
}

fn count(bytes: usize) -> u32 {
    // At most BUF_ALLOC bytes are ever admitted at a time.
    u32::try_from(bytes).unwrap_or(BUF_ALLOC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GUEST_BUF_ALLOC: u32 = 100_000;

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
        guest_knows: Credit,
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
            let guest = Credit {
                buf_alloc: GUEST_BUF_ALLOC,
                fwd_cnt: 0,
            };
            let mut peers = Self {
                connection: Connection::accepted(guest),
                guest_sent: 0,
                guest_knows: Credit::default(),
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
                    self.connection.read(sent);
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
                    self.connection.credit(Credit {
                        buf_alloc: GUEST_BUF_ALLOC,
                        fwd_cnt: self.guest_fwd,
                    });
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
                    self.connection.keep(&payload);
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
                self.guest_knows = self.connection.announce();
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
            let mut connection = Connection::accepted(Credit::default());
            for (len, (buf_alloc, fwd_cnt)) in lens.into_iter().zip(credits) {
                connection.credit(Credit { buf_alloc, fwd_cnt });
                prop_assert!(connection.to_read() <= buf_alloc);
                if connection.admit(len) == Admission::Take {
                    connection.keep(&vec![0; len as usize]);
                }
                prop_assert!(connection.unwritten.len() <= BUF_ALLOC as usize);
                connection.next_control();
            }
        }
    }

    #[test]
    fn connection_before_its_response_reads_nothing() {
        let mut connection = Connection::accepted(Credit {
            buf_alloc: 10,
            fwd_cnt: 0,
        });
        assert_eq!(connection.to_read(), 0);
        let response = connection.next_control().map(|control| control.op);
        assert_eq!(response, Some(VIRTIO_VSOCK_OP_RESPONSE));
        assert_eq!(connection.to_read(), 10);
    }

    #[test]
    fn payload_after_shutdown_is_a_violation() {
        let mut connection = Connection::accepted(Credit::default());
        connection.guest_shuts(VIRTIO_VSOCK_SHUTDOWN_F_SEND);
        assert_eq!(connection.admit(1), Admission::Violation);
    }

    #[test]
    fn payload_over_credit_is_a_violation() {
        let mut connection = Connection::accepted(Credit::default());
        assert_eq!(connection.admit(BUF_ALLOC), Admission::Take);
        connection.keep(&vec![0; BUF_ALLOC as usize]);
        assert_eq!(connection.admit(1), Admission::Violation);
    }
}

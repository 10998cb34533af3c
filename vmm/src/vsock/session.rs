//! One run of the device, from DRIVER_OK or resume to stop: the loop that waits, and what waiting brings. The two
//! halves that move packets are in `transmit` (guest to host) and `receive` (host to guest).
//!
//! Level-triggered epoll; a socket is watched only for what can be done about it now, and taken out when that is
//! nothing, since a hang-up is reported whether asked for or not.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};

use virtio_queue::{Error as QueueError, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::connection::Due;
use super::device::Vsock;
use super::table::{Id, Link, Table};
use crate::device::{Activation, ActiveQueue, Interrupt, Stop};
use crate::event::wait;
use crate::memory::GuestMemory;

/// epoll's number for the stop descriptor; queues come next, then connections.
const STOP: u64 = u64::MAX;
const KICKED_RX: u64 = u64::MAX - 1;
const KICKED_TX: u64 = u64::MAX - 2;

/// The most of a payload that is sent at once, bytes. A receive buffer of Linux is a page.
const CHUNK_BYTES: usize = 4096;

/// Packets moved in one direction before the other directions and the stop descriptor get their turn.
pub const TURN: usize = 256;

/// Everything a running device needs beside what it is.
pub struct Session<'m> {
    pub(super) vsock: &'m mut Vsock,
    pub(super) memory: &'m GuestMemory,
    pub(super) rx: &'m mut ActiveQueue,
    pub(super) tx: &'m mut ActiveQueue,
    pub(super) interrupt: &'m dyn Interrupt,
    epoll: Epoll,
    /// A payload on its way to the guest.
    pub(super) chunk: [u8; CHUNK_BYTES],
    /// Connections whose sockets have bytes for the guest.
    pub(super) readable: VecDeque<Id>,
    /// Connections that owe the guest a control packet.
    pub(super) owing: VecDeque<Id>,
    /// The guest has no receive buffer left; its kick ends this.
    pub(super) starved: bool,
    /// The TX queue may hold more packets.
    pub(super) tx_waiting: bool,
}

impl<'m> Session<'m> {
    /// A run of `vsock`, until `stop`, over the three queues of section 5.10.2: rx, tx, and event, in which nothing ever
    /// happens here.
    ///
    /// # Errors
    /// When no descriptor is left, or a queue is missing.
    pub fn new(
        vsock: &'m mut Vsock,
        activation: &'m mut Activation,
        stop: &Stop,
    ) -> io::Result<Self> {
        let [rx, tx, _] = &mut activation.queues[..] else {
            return Err(ErrorKind::InvalidInput.into());
        };
        // A driver that has just begun knows of no connection; those of its predecessor are gone.
        if rx.queue.next_avail() == 0 && tx.queue.next_avail() == 0 {
            vsock.table = Table::default();
            vsock.resets.clear();
        }
        let epoll = Epoll::new()?;
        for (descriptor, number) in [
            (stop.as_fd().as_raw_fd(), STOP),
            (rx.kick.as_raw_fd(), KICKED_RX),
            (tx.kick.as_raw_fd(), KICKED_TX),
        ] {
            let event = EpollEvent::new(EventSet::IN, number);
            epoll.ctl(ControlOperation::Add, descriptor, event)?;
        }
        Ok(Self {
            vsock,
            memory: &activation.memory,
            rx,
            tx,
            interrupt: &*activation.interrupt,
            epoll,
            chunk: [0; CHUNK_BYTES],
            readable: VecDeque::new(),
            owing: VecDeque::new(),
            starved: false,
            tx_waiting: true,
        })
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// What only a reset helps against.
    pub fn serve(mut self) -> Result<(), QueueError> {
        if !self.rx.queue.is_valid(self.memory) || !self.tx.queue.is_valid(self.memory) {
            return Err(QueueError::QueueNotReady);
        }
        for id in self.vsock.table.ids() {
            if let Some(link) = self.vsock.table.get_mut(id) {
                (link.watched, link.readable, link.owing) = (None, false, false);
            }
            self.settle(id);
        }
        self.rx.queue.disable_notification(self.memory)?;
        let mut events = [EpollEvent::default(); 64];
        loop {
            self.transmit()?;
            self.receive()?;
            let timeout = if self.is_idle() { -1 } else { 0 };
            let ready = wait(&self.epoll, timeout, &mut events).map_err(|error| {
                tracing::error!("wait for vsock events: {error}");
                QueueError::QueueNotReady
            })?;
            for event in &events[..ready] {
                let set = EventSet::from_bits_truncate(event.events());
                match event.data() {
                    STOP => return Ok(()),
                    // Reading only clears a kick: the queue says what there is to do.
                    KICKED_RX => {
                        self.starved = false;
                        let _ = self.rx.kick.read();
                    }
                    KICKED_TX => {
                        self.tx_waiting = true;
                        let _ = self.tx.kick.read();
                    }
                    id => self.socket_event(id, set),
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        let receiving = !self.starved && self.has_packets_for_guest();
        let transmitting = self.tx_waiting && !self.must_answer_first();
        !receiving && !transmitting
    }

    fn socket_event(&mut self, id: Id, set: EventSet) {
        let Some(link) = self.vsock.table.get_mut(id) else {
            return;
        };
        let hung_up = set.intersects(EventSet::HANG_UP | EventSet::ERROR);
        if link.connection.has_unwritten() && (hung_up || set.contains(EventSet::OUT)) {
            flush(link);
        } else if hung_up && link.connection.awaits_hangup() {
            link.connection.host_refuses();
        }
        if link.connection.to_read() > 0
            && !link.readable
            && (hung_up || set.contains(EventSet::IN))
        {
            link.readable = true;
            self.readable.push_back(id);
        }
        self.settle(id);
    }

    /// Brings everything that hangs on the state of a connection in line with it. To be called after each change.
    pub(super) fn settle(&mut self, id: Id) {
        let starved = self.starved;
        let Some(link) = self.vsock.table.get_mut(id) else {
            return;
        };
        while let Some(due) = link.connection.due() {
            // The peer may be gone already, which is as good.
            let _ = match due {
                Due::ShutWrite => link.stream.shutdown(Shutdown::Write),
                Due::ShutRead => link.stream.shutdown(Shutdown::Read),
                Due::Reset => return self.reset(id),
                Due::Forget => return self.forget(id),
            };
        }
        if link.connection.owes_control() && !link.owing {
            link.owing = true;
            self.owing.push_back(id);
        }
        if let Err(error) = rewatch(&self.epoll, id, link, starved) {
            tracing::error!("watch a vsock connection's socket: {error}");
            self.reset(id);
        }
    }

    /// Ends a connection and tells the guest.
    pub(super) fn reset(&mut self, id: Id) {
        let link = self.vsock.table.get_mut(id);
        let reset = link.and_then(|link| link.connection.reset());
        self.vsock.resets.extend(reset);
        self.forget(id);
    }

    fn forget(&mut self, id: Id) {
        let Some(link) = self.vsock.table.remove(id) else {
            return;
        };
        // Closing does not end the watch when the connector has kept a copy of the descriptor.
        if link.watched.is_some() {
            let (fd, event) = (link.stream.as_raw_fd(), EpollEvent::default());
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, event);
        }
        // The guest chooses when connections end: what is left behind here would grow without bound.
        if link.readable {
            self.readable.retain(|other| *other != id);
        }
        if link.owing {
            self.owing.retain(|other| *other != id);
        }
    }

    /// Logs what the guest did wrong, the first few times.
    pub(super) fn guest_fault(&self, what: &str) {
        let faults = &self.vsock.faults;
        faults.log(format_args!("vsock packet of the guest: {what}"));
    }
}

/// Writes what the socket takes of the bytes that wait for it.
pub(super) fn flush(link: &mut Link) {
    loop {
        let (first, second) = link.connection.unwritten();
        if first.is_empty() {
            return;
        }
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        match (&link.stream).write_vectored(&parts) {
            Ok(bytes) => link.connection.wrote(bytes),
            Err(error) if is_passing(&error) => return,
            Err(_) => return link.connection.host_refuses(),
        }
    }
}

/// Whether the socket is only to be tried again when it is ready.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Watches a socket for what can be done about it now; not for bytes that wait for a receive buffer already.
fn rewatch(epoll: &Epoll, id: Id, link: &mut Link, starved: bool) -> io::Result<()> {
    let connection = &link.connection;
    let parked = starved && link.readable;
    let mut wanted = EventSet::empty();
    wanted.set(EventSet::IN, connection.to_read() > 0 && !parked);
    wanted.set(EventSet::OUT, connection.has_unwritten());
    let wanted = (!wanted.is_empty() || connection.awaits_hangup()).then_some(wanted);
    let operation = match (link.watched, wanted) {
        (was, is) if was == is => return Ok(()),
        (None, _) => ControlOperation::Add,
        (_, None) => ControlOperation::Delete,
        _ => ControlOperation::Modify,
    };
    link.watched = wanted;
    let event = EpollEvent::new(wanted.unwrap_or(EventSet::empty()), id);
    epoll.ctl(operation, link.stream.as_raw_fd(), event)
}

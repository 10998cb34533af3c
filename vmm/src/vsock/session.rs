//! One run of the device, from DRIVER_OK or resume to stop: the loop that waits, and what waiting brings. The two
//! halves that move packets are in `transmit` (guest to host) and `receive` (host to guest).
//!
//! Level-triggered epoll; a socket is watched only for what can be done about it now, and taken out when that is
//! nothing, since a hang-up is reported whether asked for or not.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use virtio_queue::{DescriptorChain, Error as QueueError, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::connection::Due;
use super::device::Vsock;
use super::packet::Header;
use super::spec::{VIRTIO_VSOCK_OP_RST, VIRTIO_VSOCK_TYPE_STREAM, VMADDR_CID_HOST};
use super::table::{Id, Link};
use crate::device::{ActiveQueue, Interrupt, Stop};
use crate::memory::GuestMemory;

/// epoll's number for the stop descriptor; queues come next, then connections.
const STOP: u64 = u64::MAX;
const KICKED_RX: u64 = u64::MAX - 1;
const KICKED_TX: u64 = u64::MAX - 2;

/// Guest faults that are logged before the device falls silent about them.
const MAX_FAULTS_LOGGED: u32 = 16;

/// Packets moved in one direction before the other directions and the stop descriptor get their turn.
pub const TURN: usize = 256;

/// Everything a running device needs beside what it is.
pub struct Session<'m> {
    pub(super) vsock: &'m mut Vsock,
    pub(super) memory: &'m GuestMemory,
    pub(super) rx: ActiveQueue,
    pub(super) tx: ActiveQueue,
    /// Nothing happens that the guest would have to be told of here.
    event: ActiveQueue,
    pub(super) interrupt: &'m dyn Interrupt,
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
    /// A run over the three queues, rx, tx and event in the order of section 5.10.2.
    pub fn new(
        vsock: &'m mut Vsock,
        memory: &'m GuestMemory,
        [rx, tx, event]: [ActiveQueue; 3],
        interrupt: &'m dyn Interrupt,
    ) -> Self {
        Self {
            vsock,
            memory,
            rx,
            tx,
            event,
            interrupt,
            readable: VecDeque::new(),
            owing: VecDeque::new(),
            starved: false,
            tx_waiting: true,
        }
    }

    /// Serves until `stop`; the queues come back.
    pub fn run(mut self, stop: &Stop) -> Vec<Queue> {
        let epoll = self.prepare(stop);
        let epoll = epoll.map_err(|error| tracing::error!("set up the vsock device: {error}"));
        let served = epoll.and_then(|epoll| {
            let served = self.serve(&epoll);
            served.map_err(|fault| tracing::warn!("vsock queues are broken: {fault}"))
        });
        if served.is_err() {
            self.interrupt.needs_reset();
        }
        vec![self.rx.queue, self.tx.queue, self.event.queue]
    }

    fn prepare(&mut self, stop: &Stop) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        watch(
            &epoll,
            ControlOperation::Add,
            stop.as_fd().as_raw_fd(),
            EventSet::IN,
            STOP,
        )?;
        for (active, number) in [(&self.rx, KICKED_RX), (&self.tx, KICKED_TX)] {
            let kick = active.kick.as_raw_fd();
            watch(&epoll, ControlOperation::Add, kick, EventSet::IN, number)?;
        }
        Ok(epoll)
    }

    fn serve(&mut self, epoll: &Epoll) -> Result<(), QueueError> {
        for active in [&self.rx, &self.tx] {
            if !active.queue.is_valid(self.memory) {
                return Err(QueueError::QueueNotReady);
            }
        }
        for id in self.vsock.table.ids() {
            if let Some(link) = self.vsock.table.get_mut(id) {
                (link.watched, link.readable, link.owing) = (None, false, false);
            }
            self.settle(epoll, id);
        }
        self.rx.queue.disable_notification(self.memory)?;
        let mut events = [EpollEvent::default(); 64];
        loop {
            self.transmit(epoll)?;
            self.receive(epoll)?;
            let ready = match epoll.wait(if self.is_idle() { -1 } else { 0 }, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!("wait for vsock events: {error}");
                    return Err(QueueError::QueueNotReady);
                }
            };
            for event in &events[..ready] {
                let set = EventSet::from_bits_truncate(event.events());
                match event.data() {
                    STOP => return Ok(()),
                    number @ (KICKED_RX | KICKED_TX) => self.kicked(number),
                    id => self.socket_event(epoll, id, set),
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        let receiving = !self.starved && self.has_packets_for_guest();
        let transmitting = self.tx_waiting && !self.must_answer_first();
        !receiving && !transmitting
    }

    fn kicked(&mut self, number: u64) {
        let active = if number == KICKED_RX {
            self.starved = false;
            &self.rx
        } else {
            self.tx_waiting = true;
            &self.tx
        };
        // Only clears it: the queue says what there is to do.
        let _ = active.kick.read();
    }

    fn socket_event(&mut self, epoll: &Epoll, id: Id, set: EventSet) {
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
        self.settle(epoll, id);
    }

    /// Brings everything that hangs on the state of a connection in line with it. To be called after each change.
    pub(super) fn settle(&mut self, epoll: &Epoll, id: Id) {
        let starved = self.starved;
        let Some(link) = self.vsock.table.get_mut(id) else {
            return;
        };
        while let Some(due) = link.connection.due() {
            // The peer may be gone already, which is as good.
            let _ = match due {
                Due::ShutWrite => link.stream.shutdown(Shutdown::Write),
                Due::ShutRead => link.stream.shutdown(Shutdown::Read),
                Due::Reset => return self.reset(epoll, id),
                Due::Forget => return self.forget(epoll, id),
            };
        }
        if link.connection.owes_control() && !link.owing {
            link.owing = true;
            self.owing.push_back(id);
        }
        if let Err(error) = rewatch(epoll, id, link, starved) {
            tracing::error!("watch a vsock connection's socket: {error}");
            self.reset(epoll, id);
        }
    }

    /// Ends a connection and tells the guest.
    pub(super) fn reset(&mut self, epoll: &Epoll, id: Id) {
        if let Some(link) = self.vsock.table.get_mut(id)
            && !link.connection.is_guest_gone()
        {
            let ports = link.ports;
            self.vsock.resets.push_back(Header {
                src_cid: VMADDR_CID_HOST,
                dst_cid: self.vsock.guest_cid,
                src_port: ports.host,
                dst_port: ports.guest,
                socket_type: VIRTIO_VSOCK_TYPE_STREAM,
                op: VIRTIO_VSOCK_OP_RST,
                ..Header::default()
            });
        }
        self.forget(epoll, id);
    }

    fn forget(&mut self, epoll: &Epoll, id: Id) {
        let Some(link) = self.vsock.table.remove(id) else {
            return;
        };
        // Closing does not end the watch when the connector has kept a copy of the descriptor.
        if link.watched.is_some() {
            let fd = link.stream.as_raw_fd();
            let _ = watch(epoll, ControlOperation::Delete, fd, EventSet::empty(), id);
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
    pub(super) fn guest_fault(&mut self, what: &str) {
        if self.vsock.faults_logged < MAX_FAULTS_LOGGED {
            self.vsock.faults_logged += 1;
            tracing::warn!("vsock packet of the guest: {what}");
        }
    }
}

/// The next chain of a queue; `None` when there is none and the guest will kick for the next.
///
/// # Errors
/// Rings that make no sense, or do not lie in memory.
pub fn next_chain<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemory,
) -> Result<Option<DescriptorChain<&'m GuestMemory>>, QueueError> {
    if let Some(chain) = queue.iter(memory)?.next() {
        return Ok(Some(chain));
    }
    if !queue.enable_notification(memory)? {
        return Ok(None);
    }
    match queue.iter(memory)?.next() {
        Some(chain) => Ok(Some(chain)),
        None => Err(QueueError::InvalidAvailRingIndex),
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
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return link.connection.host_refuses(),
        }
    }
}

/// Watches a socket for what can be done about it now; not for bytes that wait for a receive buffer already.
fn rewatch(epoll: &Epoll, id: Id, link: &mut Link, starved: bool) -> io::Result<()> {
    let mut wanted = EventSet::empty();
    let parked = starved && link.readable;
    if link.connection.to_read() > 0 && !parked {
        wanted |= EventSet::IN;
    }
    if link.connection.has_unwritten() {
        wanted |= EventSet::OUT;
    }
    let wanted = (!wanted.is_empty() || link.connection.awaits_hangup()).then_some(wanted);
    let operation = match (link.watched, wanted) {
        (was, is) if was == is => return Ok(()),
        (None, _) => ControlOperation::Add,
        (_, None) => ControlOperation::Delete,
        _ => ControlOperation::Modify,
    };
    link.watched = wanted;
    let set = wanted.unwrap_or(EventSet::empty());
    watch(epoll, operation, link.stream.as_raw_fd(), set, id)
}

fn watch(
    epoll: &Epoll,
    operation: ControlOperation,
    fd: RawFd,
    set: EventSet,
    number: u64,
) -> io::Result<()> {
    epoll.ctl(operation, fd, EpollEvent::new(set, number))
}

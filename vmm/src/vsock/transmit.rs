//! Guest to host: takes packets off the TX queue and acts on them.
//!
//! Virtio 1.2, 5.10.6.

use virtio_queue::{Error as QueueError, QueueT};

use super::connection::{Admission, Connection};
use super::packet::{Header, Sent};
use super::session::{Session, TURN, flush};
use super::spec::{
    VIRTIO_VSOCK_OP_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_REQUEST,
    VIRTIO_VSOCK_OP_RST, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_TYPE_STREAM,
    VMADDR_CID_HOST,
};
use super::table::Id;
use crate::requests::next_chain;

/// Resets that may wait for receive buffers before TX packets, each of which may cause one more, have to wait
/// (5.10.6.1).
const MAX_RESETS: usize = 256;

impl Session<'_> {
    /// Whether replies must leave before another packet is taken.
    pub(super) fn must_answer_first(&self) -> bool {
        self.vsock.resets.len() >= MAX_RESETS
    }

    /// Serves the TX queue for a turn.
    pub(super) fn transmit(&mut self) -> Result<(), QueueError> {
        if !self.tx_waiting {
            return Ok(());
        }
        let mut used = false;
        self.tx.queue.disable_notification(self.memory)?;
        for _ in 0..TURN {
            if self.must_answer_first() {
                break;
            }
            let Some(chain) = next_chain(&mut self.tx.queue, self.memory)? else {
                self.tx_waiting = false;
                break;
            };
            let head = chain.head_index();
            match Sent::parse(self.memory, chain) {
                Ok(packet) => self.deliver(packet),
                Err(fault) => self.guest_fault(fault),
            }
            self.tx.queue.add_used(self.memory, head, 0)?;
            used = true;
        }
        if used && self.tx.queue.needs_notification(self.memory)? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    fn deliver(&mut self, packet: Sent<'_>) {
        let header = packet.header;
        if header.src_cid != self.vsock.guest_cid {
            return self.guest_fault("source is not the guest's context ID");
        }
        if header.dst_cid != VMADDR_CID_HOST || header.socket_type != VIRTIO_VSOCK_TYPE_STREAM {
            self.guest_fault("destination or socket type that does not exist");
            return self.refuse(&header);
        }
        let ports = (header.src_port, header.dst_port);
        match (self.vsock.table.find(ports), header.op) {
            (None, VIRTIO_VSOCK_OP_REQUEST) => self.connect(&header),
            (None, _) => self.refuse(&header),
            (Some(id), VIRTIO_VSOCK_OP_RST) => {
                self.vsock.table.orphan(id);
                if let Some(link) = self.vsock.table.get_mut(id) {
                    link.connection.guest_resets();
                }
                self.settle(id);
            }
            (Some(id), _) => match self.step(id, packet) {
                Ok(()) => self.settle(id),
                Err(fault) => {
                    self.guest_fault(fault);
                    self.reset(id);
                }
            },
        }
    }

    /// Answers a packet that belongs to no connection.
    fn refuse(&mut self, header: &Header) {
        if header.op != VIRTIO_VSOCK_OP_RST {
            let reset = header.answer(VIRTIO_VSOCK_OP_RST);
            self.vsock.resets.push_back(reset);
        }
    }

    fn connect(&mut self, header: &Header) {
        if self.vsock.table.is_full() {
            self.guest_fault("too many connections");
            return self.refuse(header);
        }
        let port = header.dst_port;
        let Some(stream) = (self.vsock.connector)(port) else {
            return self.refuse(header);
        };
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::error!("make the socket of vsock port {port} non-blocking: {error}");
            return self.refuse(header);
        }
        let connection = Connection::accepted(*header);
        let id = self.vsock.table.insert(stream, connection);
        self.settle(id);
    }

    /// Feeds a packet to its connection.
    fn step(&mut self, id: Id, packet: Sent<'_>) -> Result<(), &'static str> {
        let Some(link) = self.vsock.table.get_mut(id) else {
            return Ok(());
        };
        let header = packet.header;
        link.connection.credit(header);
        match header.op {
            VIRTIO_VSOCK_OP_RW => match link.connection.admit(header.len) {
                Admission::Take => {
                    link.connection.keep(packet.payload);
                    flush(link);
                }
                Admission::Discard => {}
                Admission::Violation => return Err("payload beyond credit or shutdown"),
            },
            VIRTIO_VSOCK_OP_SHUTDOWN => link.connection.guest_shuts(header.flags),
            VIRTIO_VSOCK_OP_CREDIT_UPDATE => {}
            VIRTIO_VSOCK_OP_CREDIT_REQUEST => link.connection.credit_requested(),
            _ => return Err("operation out of place or unknown"),
        }
        Ok(())
    }
}

//! Guest to host: takes packets off the TX queue and acts on them.
//!
//! Virtio 1.2, 5.10.6.

use virtio_queue::{Error as QueueError, QueueT};
use vmm_sys_util::epoll::Epoll;

use super::connection::{Admission, Connection, Credit};
use super::packet::{Header, Sent};
use super::session::{Session, TURN, flush, next_chain};
use super::spec::{
    VIRTIO_VSOCK_OP_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_REQUEST,
    VIRTIO_VSOCK_OP_RST, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_TYPE_STREAM,
    VMADDR_CID_HOST,
};
use super::table::{Id, Ports};

/// Resets that may wait for receive buffers before TX packets, each of which may cause one more, have to wait
/// (5.10.6.1).
const MAX_RESETS: usize = 256;

impl Session<'_> {
    /// Whether replies must leave before another packet is taken.
    pub(super) fn must_answer_first(&self) -> bool {
        self.vsock.resets.len() >= MAX_RESETS
    }

    /// Serves the TX queue for a turn.
    pub(super) fn transmit(&mut self, epoll: &Epoll) -> Result<(), QueueError> {
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
                Ok(packet) => self.deliver(epoll, packet),
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

    fn deliver(&mut self, epoll: &Epoll, packet: Sent<'_>) {
        let header = packet.header;
        if header.src_cid != self.vsock.guest_cid {
            return self.guest_fault("source is not the guest's context ID");
        }
        if header.dst_cid != VMADDR_CID_HOST || header.socket_type != VIRTIO_VSOCK_TYPE_STREAM {
            self.guest_fault("destination or socket type that does not exist");
            return self.refuse(&header);
        }
        let ports = Ports {
            guest: header.src_port,
            host: header.dst_port,
        };
        match (self.vsock.table.find(ports), header.op) {
            (None, VIRTIO_VSOCK_OP_REQUEST) => self.connect(epoll, ports, &header),
            (None, _) => self.refuse(&header),
            (Some(id), VIRTIO_VSOCK_OP_RST) => {
                self.vsock.table.orphan(id);
                if let Some(link) = self.vsock.table.get_mut(id) {
                    link.connection.guest_resets();
                }
                self.settle(epoll, id);
            }
            (Some(id), _) => match self.step(id, packet) {
                Ok(()) => self.settle(epoll, id),
                Err(fault) => {
                    self.guest_fault(fault);
                    self.reset(epoll, id);
                }
            },
        }
    }

    /// Answers a packet that belongs to no connection.
    fn refuse(&mut self, header: &Header) {
        if header.op == VIRTIO_VSOCK_OP_RST {
            return;
        }
        self.vsock.resets.push_back(Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            src_port: header.dst_port,
            dst_port: header.src_port,
            socket_type: header.socket_type,
            op: VIRTIO_VSOCK_OP_RST,
            ..Header::default()
        });
    }

    fn connect(&mut self, epoll: &Epoll, ports: Ports, header: &Header) {
        if self.vsock.table.is_full() {
            self.guest_fault("too many connections");
            return self.refuse(header);
        }
        let Some(stream) = (self.vsock.connector)(ports.host) else {
            return self.refuse(header);
        };
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::error!(
                "make the socket of vsock port {} non-blocking: {error}",
                ports.host
            );
            return self.refuse(header);
        }
        let connection = Connection::accepted(credit(header));
        let id = self.vsock.table.insert(ports, stream, connection);
        self.settle(epoll, id);
    }

    /// Feeds a packet to its connection.
    fn step(&mut self, id: Id, mut packet: Sent<'_>) -> Result<(), &'static str> {
        let Some(link) = self.vsock.table.get_mut(id) else {
            return Ok(());
        };
        let header = packet.header;
        link.connection.credit(credit(&header));
        match header.op {
            VIRTIO_VSOCK_OP_RW => match link.connection.admit(header.len) {
                Admission::Take => {
                    packet.for_each_chunk(|chunk| link.connection.keep(chunk));
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

fn credit(header: &Header) -> Credit {
    Credit {
        buf_alloc: header.buf_alloc,
        fwd_cnt: header.fwd_cnt,
    }
}

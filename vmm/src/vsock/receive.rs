//! Host to guest: fills the guest's receive buffers, resets first, then control packets, then payload, one packet a
//! connection in turn, by one read(2). A buffer for which there is nothing goes back to the queue.
//!
//! Virtio 1.2, 5.10.6.

use std::io::ErrorKind;

use virtio_queue::{Error as QueueError, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::Epoll;

use super::packet::{Header, Room};
use super::session::{Session, TURN, next_chain};
use super::spec::{VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_TYPE_STREAM, VMADDR_CID_HOST};
use super::table::{Id, Link};

impl Session<'_> {
    /// Whether something could be sent if there were a buffer.
    pub(super) fn has_packets_for_guest(&self) -> bool {
        !(self.vsock.resets.is_empty() && self.owing.is_empty() && self.readable.is_empty())
    }

    /// Serves the RX queue for a turn.
    pub(super) fn receive(&mut self, epoll: &Epoll) -> Result<(), QueueError> {
        let mut used = false;
        for _ in 0..TURN {
            if self.starved || !self.has_packets_for_guest() {
                break;
            }
            let Some(chain) = next_chain(&mut self.rx.queue, self.memory)? else {
                self.starved = true;
                self.unwatch_readable(epoll);
                break;
            };
            let head = chain.head_index();
            let len = match Room::parse(self.memory, chain) {
                Ok(mut room) => self.next_packet(epoll, &mut room),
                Err(fault) => {
                    self.guest_fault(fault);
                    Some(0)
                }
            };
            let Some(len) = len else {
                self.rx.queue.go_to_previous_position();
                break;
            };
            self.rx.queue.add_used(self.memory, head, len)?;
            used = true;
        }
        if !self.starved {
            self.rx.queue.disable_notification(self.memory)?;
        }
        if used && self.rx.queue.needs_notification(self.memory)? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Sockets that stay readable without a buffer for their bytes must not wake the thread.
    fn unwatch_readable(&mut self, epoll: &Epoll) {
        for at in 0..self.readable.len() {
            if let Some(id) = self.readable.get(at).copied() {
                self.settle(epoll, id);
            }
        }
    }

    /// Writes the next packet into `room`; the length of the used element, or `None` when there was none after all.
    fn next_packet(&mut self, epoll: &Epoll, room: &mut Room<'_>) -> Option<u32> {
        if let Some(header) = self.vsock.resets.pop_front() {
            return Some(room.put(header));
        }
        while let Some(id) = self.owing.pop_front() {
            if let Some(len) = self.next_control(id, room) {
                self.settle(epoll, id);
                return Some(len);
            }
        }
        if room.is_header_only() && !self.readable.is_empty() {
            self.guest_fault("receive buffer without room for a payload");
            return Some(0);
        }
        while let Some(id) = self.readable.pop_front() {
            if let Some(len) = self.next_payload(epoll, id, room) {
                return Some(len);
            }
            // The end of the stream may be news for the guest.
            if let Some(id) = self.owing.pop_front() {
                let len = self.next_control(id, room);
                self.settle(epoll, id);
                if len.is_some() {
                    return len;
                }
            }
        }
        None
    }

    fn next_control(&mut self, id: Id, room: &mut Room<'_>) -> Option<u32> {
        let guest_cid = self.vsock.guest_cid;
        let link = self.vsock.table.get_mut(id)?;
        link.owing = false;
        let control = link.connection.next_control()?;
        let header = Header {
            op: control.op,
            flags: control.flags,
            ..header_of(link, guest_cid)
        };
        Some(room.put(header))
    }

    /// One packet of payload from a socket; it goes to the end of the line when it may have more.
    fn next_payload(&mut self, epoll: &Epoll, id: Id, room: &mut Room<'_>) -> Option<u32> {
        let guest_cid = self.vsock.guest_cid;
        let link = self.vsock.table.get_mut(id)?;
        link.readable = false;
        let credit = link.connection.to_read();
        if credit == 0 {
            self.settle(epoll, id);
            return None;
        }
        let read = room.fill(&link.stream, credit);
        if let Ok((len @ 1.., filled)) = read {
            link.connection.read(len);
            let header = Header {
                op: VIRTIO_VSOCK_OP_RW,
                len,
                ..header_of(link, guest_cid)
            };
            let used = room.put(header);
            if filled {
                link.readable = true;
                self.readable.push_back(id);
            } else {
                self.settle(epoll, id);
            }
            return Some(used);
        }
        match read {
            Ok(_) => link.connection.host_ended(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                self.reset(epoll, id);
                return None;
            }
        }
        self.settle(epoll, id);
        None
    }
}

fn header_of(link: &mut Link, guest_cid: u64) -> Header {
    let credit = link.connection.announce();
    Header {
        src_cid: VMADDR_CID_HOST,
        dst_cid: guest_cid,
        src_port: link.ports.host,
        dst_port: link.ports.guest,
        socket_type: VIRTIO_VSOCK_TYPE_STREAM,
        buf_alloc: credit.buf_alloc,
        fwd_cnt: credit.fwd_cnt,
        ..Header::default()
    }
}

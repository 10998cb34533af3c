//! Host to guest: fills the guest's receive buffers, resets first, then control packets, then payload, one packet a
//! connection in turn, by one read(2). A buffer for which there is nothing goes back to the queue.
//!
//! Virtio 1.2, 5.10.6.

use std::io::{Read, Write};

use virtio_queue::{DescriptorChain, Error as QueueError, QueueOwnedT, QueueT};

use super::packet::Header;
use super::session::{Session, TURN, is_passing};
use super::spec::HEADER_BYTES;
use super::table::Id;
use crate::memory::{GuestMemory, Writer};
use crate::requests::next_chain;

impl Session<'_> {
    /// Whether something could be sent if there were a buffer.
    pub(super) fn has_packets_for_guest(&self) -> bool {
        !(self.vsock.resets.is_empty() && self.owing.is_empty() && self.readable.is_empty())
    }

    /// Serves the RX queue for a turn.
    pub(super) fn receive(&mut self) -> Result<(), QueueError> {
        let mut used = false;
        for _ in 0..TURN {
            if self.starved || !self.has_packets_for_guest() {
                break;
            }
            let Some(chain) = next_chain(&mut self.rx.queue, self.memory)? else {
                self.starved = true;
                // Sockets that stay readable without a buffer for their bytes must not wake the thread.
                for id in self.readable.clone() {
                    self.settle(id);
                }
                break;
            };
            let head = chain.head_index();
            let filled = self.fill(chain).unwrap_or_else(|fault| {
                self.guest_fault(fault);
                Some(0)
            });
            let Some(len) = filled else {
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

    /// Writes the next packet into a buffer; the length of the used element, or `None` when there was no packet after all.
    fn fill(&mut self, chain: DescriptorChain<&GuestMemory>) -> Result<Option<u32>, &'static str> {
        let buffer = chain.writer(self.memory);
        let mut buffer: Writer<'_> = buffer.map_err(|_| "buffer outside of memory")?;
        let room = buffer.available_bytes().checked_sub(HEADER_BYTES);
        let room = room.ok_or("buffer too short for a header")?;
        let Some(header) = self.next_packet(room)? else {
            return Ok(None);
        };
        // There is room for both, and the memory is the guest's own.
        let _ = buffer.write_obj(header);
        let _ = buffer.write_all(&self.chunk[..header.len as usize]);
        Ok(u32::try_from(buffer.bytes_written()).ok())
    }

    /// The next packet with at most `room` bytes of payload, which is in `chunk`.
    fn next_packet(&mut self, room: usize) -> Result<Option<Header>, &'static str> {
        loop {
            let reset = self.vsock.resets.pop_front();
            let control = reset.or_else(|| self.next_control());
            if control.is_some() {
                return Ok(control);
            }
            if room == 0 && !self.readable.is_empty() {
                return Err("receive buffer without room for a payload");
            }
            let Some(id) = self.readable.pop_front() else {
                return Ok(None);
            };
            // If there is none: the end of the stream may be news for the guest.
            let payload = self.next_payload(id, room);
            if payload.is_some() {
                return Ok(payload);
            }
        }
    }

    fn next_control(&mut self) -> Option<Header> {
        while let Some(id) = self.owing.pop_front() {
            let link = self.vsock.table.get_mut(id)?;
            link.owing = false;
            let control = link.connection.next_control();
            self.settle(id);
            if control.is_some() {
                return control;
            }
        }
        None
    }

    /// One packet of payload from a socket; it goes to the end of the line when it may have more.
    fn next_payload(&mut self, id: Id, room: usize) -> Option<Header> {
        let link = self.vsock.table.get_mut(id)?;
        link.readable = false;
        let credit = link.connection.to_read() as usize;
        let most = credit.min(room).min(self.chunk.len());
        let mut packet = None;
        if most > 0 {
            match link.stream.read(&mut self.chunk[..most]) {
                Ok(0) => link.connection.host_ended(),
                Ok(bytes) => {
                    packet = Some(link.connection.payload(bytes));
                    link.readable = bytes == most;
                }
                Err(error) if is_passing(&error) => {}
                Err(_) => {
                    self.reset(id);
                    return None;
                }
            }
        }
        if link.readable {
            self.readable.push_back(id);
        }
        self.settle(id);
        packet
    }
}

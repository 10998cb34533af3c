//! Buffers that are given back together. A driver that finds the first of a frame's buffers expects the others to be there,
//! too, so they must become visible at once, which the queue's own `add_used` does one by one.
//!
//! Virtio 1.2, sections 2.7.8 (used ring) and 2.7.10 (notification suppression).

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// Flags and index, in front of either ring, bytes.
const RING_HEADER_BYTES: u64 = 4;
const USED_ELEMENT_BYTES: u64 = 8;
const AVAILABLE_ELEMENT_BYTES: u64 = 2;

/// Gives back `buffers`, each the head of a chain and the bytes written to it.
pub fn add_used_together(
    queue: &mut Queue,
    memory: &GuestMemory,
    buffers: &[(u16, u32)],
) -> Result<(), Error> {
    let Some(((head, bytes), earlier)) = buffers.split_last() else {
        return Ok(());
    };
    let mut next = Wrapping(queue.next_used());
    for (head, bytes) in earlier {
        let place = u64::from(next.0 % queue.size()) * USED_ELEMENT_BYTES;
        let at = address(queue.used_ring(), RING_HEADER_BYTES + place)?;
        let element = [u32::from(*head).to_le(), bytes.to_le()];
        memory.write_obj(element, at).map_err(Error::GuestMemory)?;
        next += 1;
    }
    queue.set_next_used(next.0);
    queue.add_used(memory, *head, *bytes)
}

/// Whether the driver wants to be told of what has been given back since `next_used` was `before`.
pub fn needs_notification(
    queue: &mut Queue,
    memory: &GuestMemory,
    before: u16,
) -> Result<bool, Error> {
    if !queue.event_idx_enabled() {
        return queue.needs_notification(memory);
    }
    // The driver sees what was given back before we see what it waits for.
    fence(Ordering::SeqCst);
    let ring_bytes = u64::from(queue.size()) * AVAILABLE_ELEMENT_BYTES;
    let at = address(queue.avail_ring(), RING_HEADER_BYTES + ring_bytes)?;
    let used_event = memory.load(at, Ordering::Relaxed);
    let used_event = Wrapping(u16::from_le(used_event.map_err(Error::GuestMemory)?));
    let next = Wrapping(queue.next_used());
    Ok(next - used_event - Wrapping(1) < next - Wrapping(before))
}

fn address(ring: u64, offset: u64) -> Result<GuestAddress, Error> {
    let address = ring.checked_add(offset).map(GuestAddress);
    address.ok_or(Error::AddressOverflow)
}

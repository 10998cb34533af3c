//! Which blocks of the region are plugged, and what a request asks of which: plain values. All of a request is the guest's
//! input.
//!
//! Virtio 1.2, sections 5.15.4 (configuration) and 5.15.6 (requests).

use std::ops::Range;

use super::spec::*;
use crate::memory::HUGE_PAGE_BYTES;

/// Size of a block, bytes.
pub const BLOCK_BYTES: u64 = HUGE_PAGE_BYTES as u64;

/// The region.
pub struct Blocks {
    start: u64,
    plugged: Vec<bool>,
    /// How much the guest is to have plugged, bytes.
    pub requested: u64,
}

/// What the driver wants.
pub struct Request {
    /// `VIRTIO_MEM_REQ_*`.
    pub kind: u16,
    /// Of which blocks, all of which there are.
    pub blocks: Range<usize>,
}

impl Blocks {
    /// A region of so many bytes from guest-physical address `start` on, of which nothing is plugged.
    pub fn new((start, bytes): (u64, u64)) -> Self {
        let count = usize::try_from(bytes / BLOCK_BYTES).unwrap_or(0);
        Self {
            start,
            plugged: vec![false; count],
            requested: 0,
        }
    }

    /// Reads a request; `None` = malformed or out of range.
    pub fn parse(&self, request: &[u8; REQUEST_BYTES]) -> Option<Request> {
        let u16_at = |at: usize| u16::from_le_bytes([request[at], request[at + 1]]);
        let kind = u16_at(0);
        if kind == VIRTIO_MEM_REQ_UNPLUG_ALL {
            let blocks = 0..self.plugged.len();
            return Some(Request { kind, blocks });
        }
        let (_, address) = request[..16].split_last_chunk()?;
        let offset = u64::from_le_bytes(*address).checked_sub(self.start)?;
        let first = usize::try_from(offset / BLOCK_BYTES).ok()?;
        let blocks = first..first.checked_add(u16_at(16).into())?;
        let is_whole = offset.is_multiple_of(BLOCK_BYTES) && !blocks.is_empty();
        let is_known = kind <= VIRTIO_MEM_REQ_STATE && blocks.end <= self.plugged.len();
        (is_whole && is_known).then_some(Request { kind, blocks })
    }

    /// How the blocks stand; `VIRTIO_MEM_STATE_*`.
    pub fn state(&self, blocks: &Range<usize>) -> u16 {
        let blocks = self.plugged.get(blocks.clone()).unwrap_or_default();
        match blocks.iter().filter(|plugged| **plugged).count() {
            0 => VIRTIO_MEM_STATE_UNPLUGGED,
            count if count == blocks.len() => VIRTIO_MEM_STATE_PLUGGED,
            _ => VIRTIO_MEM_STATE_MIXED,
        }
    }

    /// Why a request cannot be, `VIRTIO_MEM_RESP_*`.
    pub fn refusal(&self, Request { kind, blocks }: &Request) -> Option<u16> {
        let (_, bytes) = self.span(blocks);
        match (*kind, self.state(blocks)) {
            (VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_STATE_UNPLUGGED) => {
                (self.plugged_bytes() + bytes > self.requested).then_some(VIRTIO_MEM_RESP_NACK)
            }
            (VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_STATE_PLUGGED) => None,
            (VIRTIO_MEM_REQ_PLUG | VIRTIO_MEM_REQ_UNPLUG, _) => Some(VIRTIO_MEM_RESP_ERROR),
            _ => None,
        }
    }

    /// Notes that the blocks are plugged, or are not.
    pub fn set(&mut self, blocks: Range<usize>, plugged: bool) {
        if let Some(blocks) = self.plugged.get_mut(blocks) {
            blocks.fill(plugged);
        }
    }

    /// Guest-physical address and length, bytes.
    pub fn span(&self, blocks: &Range<usize>) -> (u64, u64) {
        let bytes = |count: usize| count as u64 * BLOCK_BYTES;
        (self.start + bytes(blocks.start), bytes(blocks.len()))
    }

    /// How much is plugged, bytes.
    pub fn plugged_bytes(&self) -> u64 {
        self.plugged.iter().filter(|plugged| **plugged).count() as u64 * BLOCK_BYTES
    }

    /// `struct virtio_mem_config`.
    pub fn config(&self) -> Vec<u8> {
        let region_size = self.plugged.len() as u64 * BLOCK_BYTES;
        // The second is node_id and padding, the fifth usable_region_size.
        let (plugged, requested) = (self.plugged_bytes(), self.requested);
        [
            BLOCK_BYTES,
            0,
            self.start,
            region_size,
            region_size,
            plugged,
            requested,
        ]
        .map(u64::to_le_bytes)
        .concat()
    }
}

//! The memory device driven by a mock driver, well-behaved and not.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::blocks::BLOCK_BYTES;
use super::*;
use crate::device::ActiveQueue;
use crate::requests::mock::exchange;

const REQUEST: u64 = 0x1_0000;
const ANSWER: u64 = 0x2_0000;

/// Blocks of 128 MiB.
const BLOCKS: u16 = 64;

struct Machine {
    memory: GuestMemory,
    device: Mem,
    start: u64,
}

impl Machine {
    fn new() -> Self {
        let memory = memory::map(2, 128).unwrap();
        let changed = EventFd::new(EFD_NONBLOCK).unwrap();
        Self {
            device: Mem::new(2, 128, changed),
            start: memory::pluggable(2, 128).0,
            memory,
        }
    }

    /// One request of these bytes, with so much room for an answer; what the device says it wrote of it.
    fn offer(&self, request: &[u8], room: u32) -> Vec<u8> {
        let answer_at = GuestAddress(ANSWER);
        self.memory.write_slice(&[0xff; 32], answer_at).unwrap();
        let answer = |memory: &GuestMemory, chain: DescriptorChain<&GuestMemory>| {
            Some(self.device.answer(memory, chain))
        };
        let (used, mut bytes) = exchange(&self.memory, [REQUEST, ANSWER], request, room, answer);
        bytes.truncate(used);
        bytes
    }

    /// The answer to a whole request, and the state in it.
    fn ask(&self, kind: u16, block: u64, count: u16) -> (u16, u16) {
        let request = request(kind, self.start + block * BLOCK_BYTES, count);
        let answer = self.offer(&request, 10);
        assert_eq!(answer.len(), 10);
        let word = |at: usize| u16::from_le_bytes([answer[at], answer[at + 1]]);
        (word(0), word(8))
    }

    fn plugged(&self) -> u64 {
        self.device.size.state().blocks.plugged_bytes()
    }
}

fn request(kind: u16, address: u64, count: u16) -> Vec<u8> {
    let mut bytes = u64::from(kind).to_le_bytes().to_vec();
    bytes.extend(address.to_le_bytes());
    bytes.extend(u64::from(count).to_le_bytes());
    bytes
}

const PLUG: u16 = VIRTIO_MEM_REQ_PLUG;
const UNPLUG: u16 = VIRTIO_MEM_REQ_UNPLUG;
const STATE: u16 = VIRTIO_MEM_REQ_STATE;
const ACK: (u16, u16) = (VIRTIO_MEM_RESP_ACK, 0);
const NACK: (u16, u16) = (VIRTIO_MEM_RESP_NACK, 0);
const ERROR: (u16, u16) = (VIRTIO_MEM_RESP_ERROR, 0);

#[test]
fn blocks_are_plugged_as_far_as_they_are_requested_and_come_back_empty() {
    let machine = Machine::new();
    let size = machine.device.size();
    assert_eq!(machine.ask(PLUG, 0, 1), NACK);
    size.request(8, false);
    assert_eq!(machine.ask(PLUG, 0, 5), NACK);
    assert_eq!(machine.ask(PLUG, 2, 3), ACK);
    assert!(!size.is_reached());
    assert_eq!(machine.ask(PLUG, 5, 1), ACK);
    assert!(size.is_reached() && machine.device.changed.read().is_ok());
    assert_eq!(machine.ask(PLUG, 6, 1), NACK);
    let byte = GuestAddress(machine.start + 3 * BLOCK_BYTES);
    machine.memory.write_obj(7u8, byte).unwrap();
    // More than was asked for is enough, unless it is to be less.
    size.request(6, false);
    assert!(size.is_reached());
    size.request(2, true);
    assert!(!size.is_reached());
    assert_eq!(machine.ask(UNPLUG, 3, 3), ACK);
    assert!(size.is_reached());
    assert_eq!(machine.ask(UNPLUG, 2, 1), ACK);
    assert_eq!(machine.ask(PLUG, 3, 1), ACK);
    assert_eq!(machine.memory.read_obj::<u8>(byte).unwrap(), 0);
    assert_eq!(machine.ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 9, 9), ACK);
    assert_eq!(machine.plugged(), 0);
}

#[test]
fn state_tells_plugged_unplugged_and_mixed_blocks_apart() {
    let machine = Machine::new();
    machine.device.size().request(128, false);
    assert_eq!(machine.ask(PLUG, 1, 2), ACK);
    let states = [(1, 2), (3, 61), (0, 3)].map(|(block, count)| machine.ask(STATE, block, count));
    let (plugged, unplugged) = (VIRTIO_MEM_STATE_PLUGGED, VIRTIO_MEM_STATE_UNPLUGGED);
    let expected = [plugged, unplugged, VIRTIO_MEM_STATE_MIXED];
    assert_eq!(states, expected.map(|state| (VIRTIO_MEM_RESP_ACK, state)));
}

#[test]
fn request_that_overlaps_is_out_of_range_or_malformed_changes_nothing() {
    let machine = Machine::new();
    machine.device.size().request(128, false);
    assert_eq!(machine.ask(PLUG, 1, 2), ACK);
    for (kind, block, count) in [
        (PLUG, 0, 2),
        (PLUG, 2, 2),
        (UNPLUG, 0, 2),
        (UNPLUG, 2, 2),
        (UNPLUG, 5, 1),
        (PLUG, 3, 0),
        (STATE, 0, 0),
        (PLUG, u64::from(BLOCKS) - 1, 2),
        (PLUG, u64::from(BLOCKS), 1),
        (STATE, 0, BLOCKS + 1),
        (STATE, 0, u16::MAX),
        (4, 0, 1),
        (u16::MAX, 0, 1),
    ] {
        assert_eq!(
            machine.ask(kind, block, count),
            ERROR,
            "{kind} {block} {count}"
        );
    }
    let far = [machine.start + 1, machine.start - BLOCK_BYTES, 0, u64::MAX];
    let whole = request(PLUG, machine.start + 4 * BLOCK_BYTES, 1);
    let wrong = far.map(|address| request(PLUG, address, 1));
    for request in wrong.into_iter().chain([whole[..23].to_vec()]) {
        assert_eq!(machine.offer(&request, 10)[0], 3);
    }
    assert_eq!(machine.plugged(), 2 * BLOCK_BYTES);
    // Without room for an answer none is written; what was asked for has been done.
    assert!(machine.offer(&whole, 9).is_empty());
    assert!(machine.offer(&whole, 0).is_empty());
}

/// Keeps the last configuration that the driver would read, and how often it was told of one.
#[derive(Default)]
struct Driver {
    config: Mutex<Vec<u8>>,
    told: AtomicU32,
}

impl Interrupt for Driver {
    fn used_buffer(&self) {}
    fn set_config(&self, config: Vec<u8>, tells: bool) {
        *self.config.lock().unwrap() = config;
        self.told.fetch_add(tells.into(), Ordering::SeqCst);
    }
    fn needs_reset(&self, _: &str) {}
}

#[test]
fn driver_reads_what_is_requested_whenever_that_was() {
    let machine = Machine::new();
    let size = machine.device.size();
    let word =
        |config: &[u8], at: usize| u64::from_le_bytes(config[at..at + 8].try_into().unwrap());
    let config = machine.device.config();
    let words: Vec<_> = (0..7).map(|index| word(&config, index * 8)).collect();
    let bytes = 128 << 20;
    assert_eq!(words, [BLOCK_BYTES, 0, machine.start, bytes, bytes, 0, 0]);
    // Before the driver is there, and while it runs.
    size.request(4, false);
    let driver = Arc::new(Driver::default());
    let mock = MockSplitQueue::new(&machine.memory, 16);
    let queue = ActiveQueue {
        queue: mock.create_queue().unwrap(),
        kick: EventFd::new(EFD_NONBLOCK).unwrap(),
    };
    let activation = Activation {
        memory: machine.memory.clone(),
        features: 0,
        queues: vec![queue],
        interrupt: driver.clone(),
    };
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    stop.write(1).unwrap();
    let (device, _) = Box::new(machine.device).run(activation, &Stop::new(stop));
    assert_eq!(word(&driver.config.lock().unwrap(), 48), 4 << 20);
    assert_eq!(driver.told.load(Ordering::SeqCst), 1);
    // One that was stopped tells nobody.
    size.request(6, false);
    assert_eq!(word(&driver.config.lock().unwrap(), 48), 4 << 20);
    assert_eq!(word(&device.config(), 48), 6 << 20);
}

proptest! {
    /// Whatever is asked, no more is plugged than is requested, and what is plugged can be used, and nothing else.
    #[test]
    fn flood_of_requests_never_plugs_more_than_is_requested(
        requests in prop::collection::vec((0u16..5, 0u64..70, 0u16..70, 0u32..130), 1..60)
    ) {
        let machine = Machine::new();
        for (kind, block, count, mib) in requests {
            machine.device.size().request(mib, false);
            let before = machine.plugged();
            machine.ask(kind, block, count);
            prop_assert!(machine.plugged() <= before.max(u64::from(mib) << 20));
        }
        let mut file = tempfile::tempfile().unwrap();
        let state = machine.device.size.state();
        for block in 0..usize::from(BLOCKS) {
            let block = block..block + 1;
            let start = GuestAddress(state.blocks.span(&block).0);
            if state.blocks.state(&block) == VIRTIO_MEM_STATE_PLUGGED {
                machine.memory.write_obj(1u8, start).unwrap();
            } else {
                // The kernel finds nothing there that it could write.
                let written = machine.memory.write_volatile_to(start, &mut file, 1);
                prop_assert!(written.is_err());
            }
        }
    }
}

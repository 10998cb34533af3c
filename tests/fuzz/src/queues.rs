//! The guest's side of a device's queues. The input is what lies in guest memory from its first byte on: descriptor
//! tables, rings, buffers. A device is run in turns, each with the stop already signalled: then it serves what is there
//! once and gives itself back.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm::device::{Activation, ActiveQueue, Device, Interrupt, Stop};
use vmm::memory::GuestMemory;
use vmm_sys_util::eventfd::EventFd;

const MEMORY_BYTES: usize = 0x1_0000;
/// Descriptors of each queue.
pub const QUEUE_SIZE: u16 = 16;
/// Descriptor table, then rings, of each queue.
const QUEUE_BYTES: u64 = 0x200;
const AVAIL: u64 = 0x100;
const USED: u64 = 0x140;

/// The next descriptor goes on.
pub const NEXT: u16 = 1;
/// The device writes.
pub const WRITE: u16 = 2;

/// Nobody listens.
struct Silent;

impl Interrupt for Silent {
    fn used_buffer(&self) {}
    fn set_config(&self, _: Vec<u8>, _: bool) {}
    fn needs_reset(&self, _: &str) {}
}

/// Guest memory and the device that works in it.
pub struct Guest {
    memory: GuestMemory,
    device: Option<Box<dyn Device>>,
    queues: Vec<Queue>,
    /// What the driver accepted.
    pub features: u64,
}

impl Guest {
    /// A guest whose memory begins with `image`.
    pub fn new(image: &[u8], device: Box<dyn Device>, event_idx: bool) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)])
            .expect("memory of a fixed size");
        let image = &image[..image.len().min(MEMORY_BYTES)];
        memory
            .write_slice(image, GuestAddress(0))
            .expect("an image that fits");
        let queues = (0..device.queue_sizes().len() as u64)
            .map(|number| queue(number * QUEUE_BYTES, event_idx))
            .collect();
        Self {
            memory,
            device: Some(device),
            queues,
            features: 0,
        }
    }

    /// Lets the device serve each queue once.
    pub fn turn(&mut self) {
        let event = || EventFd::new(0).expect("a descriptor");
        let stop = event();
        stop.write(1).expect("room in a new counter");
        let queues = self.queues.drain(..).map(|queue| ActiveQueue {
            queue,
            kick: kicked(event()),
        });
        let activation = Activation {
            memory: self.memory.clone(),
            features: self.features,
            queues: queues.collect(),
            interrupt: Arc::new(Silent),
        };
        let device = self.device.take().expect("a device at rest");
        let (device, queues) = device.run(activation, &Stop::new(stop));
        (self.device, self.queues) = (Some(device), queues);
    }

    /// Makes as many chains as half a ring holds available again.
    pub fn offer_again(&self) {
        for number in 0..self.queues.len() as u64 {
            let place = GuestAddress(number * QUEUE_BYTES + AVAIL + 2);
            let idx: u16 = self.memory.read_obj(place).expect("an address in memory");
            let idx = idx.wrapping_add(QUEUE_SIZE / 2);
            self.memory
                .write_obj(idx, place)
                .expect("an address in memory");
        }
    }
}

/// A device reads its kicks, which would block when there is none.
fn kicked(event: EventFd) -> EventFd {
    event.write(1).expect("room in a new counter");
    event
}

fn queue(base: u64, event_idx: bool) -> Queue {
    let mut queue = Queue::new(QUEUE_SIZE).expect("a power of two");
    let low = |address: u64| u32::try_from(address).ok();
    queue.set_desc_table_address(low(base), None);
    queue.set_avail_ring_address(low(base + AVAIL), None);
    queue.set_used_ring_address(low(base + USED), None);
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    queue
}

/// An image of guest memory, laid out by an honest driver.
pub struct Image {
    bytes: Vec<u8>,
    descriptors: Vec<u16>,
    chains: Vec<u16>,
}

impl Image {
    /// For a device of so many queues.
    pub fn new(queues: usize) -> Self {
        Self {
            bytes: vec![0; queues * 0x200],
            descriptors: vec![0; queues],
            chains: vec![0; queues],
        }
    }

    /// Makes a chain available in queue `number`: contents of buffers for the device to read, sizes of those to write.
    pub fn chain(&mut self, number: usize, read: &[&[u8]], write: &[usize]) {
        let head = self.descriptors[number];
        let read = read.iter().map(|bytes| (bytes.to_vec(), 0));
        let write = write.iter().map(|bytes| (vec![0; *bytes], WRITE));
        let mut buffers = read.chain(write).peekable();
        while let Some((bytes, flags)) = buffers.next() {
            let at = self.descriptors[number];
            let next = if buffers.peek().is_some() { NEXT } else { 0 };
            let length = u32::try_from(bytes.len()).expect("a small buffer");
            let descriptor = [
                &(self.bytes.len() as u64).to_le_bytes()[..],
                &length.to_le_bytes(),
                &(flags | next).to_le_bytes(),
                &(at + 1).to_le_bytes(),
            ]
            .concat();
            self.put(number * 0x200 + usize::from(at) * 16, &descriptor);
            self.bytes.extend(bytes);
            self.descriptors[number] += 1;
        }
        let avail = number * 0x200 + 0x100;
        let slot = avail + 4 + usize::from(self.chains[number]) * 2;
        self.put(slot, &head.to_le_bytes());
        self.chains[number] += 1;
        let idx = self.chains[number].to_le_bytes();
        self.put(avail + 2, &idx);
    }

    /// The image behind a byte of options.
    pub fn with_options(self, options: u8) -> Vec<u8> {
        [vec![options], self.bytes].concat()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
impl Guest {
    /// How many chains of queue `number` the device has used.
    pub fn used(&self, number: u64) -> u16 {
        let place = GuestAddress(number * QUEUE_BYTES + USED + 2);
        self.memory.read_obj(place).expect("an address in memory")
    }

    /// The number that begins `offset` bytes into the buffer of a descriptor of queue `number`.
    pub fn word(&self, number: u64, descriptor: u64, offset: u64) -> i32 {
        let entry = GuestAddress(number * QUEUE_BYTES + descriptor * 16);
        let buffer: u64 = self.memory.read_obj(entry).expect("an address in memory");
        let word = self.memory.read_obj(GuestAddress(buffer + offset));
        word.expect("an address in memory")
    }
}

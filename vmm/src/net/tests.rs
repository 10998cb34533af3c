//! A card driven by a mock driver, with a pair of sockets for its link.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use virtio_queue::QueueT;
use virtio_queue::desc::{RawDescriptor, split};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::device::ActiveQueue;
use crate::memory::GuestMemory;
use crate::requests::mock::Counted;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const MEMORY_BYTES: usize = 0x20_0000;
/// Where the second queue begins.
const TX: u64 = 0x1_0000;
/// Where buffers lie, a page each.
const BUFFERS: u64 = 0x2_0000;
const SIZE: u16 = 16;
const DEADLINE: Duration = Duration::from_secs(10);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Socket(UnixDatagram);

impl Link for Socket {
    fn offloads(&self) -> u64 {
        0
    }
    fn set_offloads(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        self.0.recv(frame)
    }
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }
}

/// A card that runs, its driver, and the other end of its cable.
struct Card<Other = UnixDatagram> {
    memory: &'static GuestMemory,
    rings: [MockSplitQueue<'static, GuestMemory>; 2],
    host: Other,
    kicks: [EventFd; 2],
    stop: EventFd,
    interrupt: Arc<Counted>,
    thread: JoinHandle<Vec<Queue>>,
    available: [u16; 2],
}

impl Card {
    fn new(features: u64) -> Self {
        Self::limited(features, Limit::default())
    }

    /// A card with the same limit for each direction.
    fn limited(features: u64, limit: Limit) -> Self {
        let (host, link) = UnixDatagram::pair().unwrap();
        link.set_nonblocking(true).unwrap();
        host.set_read_timeout(Some(DEADLINE)).unwrap();
        Card::on(Box::new(Socket(link)), host, features, limit)
    }
}

impl<Other> Card<Other> {
    /// A card on this link, at whose other end `host` is.
    fn on(link: Box<dyn Link>, host: Other, features: u64, limit: Limit) -> Self {
        let meters = [Meter::new(limit), Meter::new(limit)];
        let memory = memory();
        // Making one clears its ring.
        let rings = [0, TX].map(|start| MockSplitQueue::create(memory, GuestAddress(start), SIZE));
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let (kicks, stop) = ([event(), event()], event());
        let active = |(ring, kick): (&MockSplitQueue<_>, &EventFd)| {
            let mut queue: Queue = ring.create_queue().unwrap();
            queue.set_event_idx(features & crate::mmio::spec::VIRTIO_F_EVENT_IDX != 0);
            let kick = kick.try_clone().unwrap();
            ActiveQueue { queue, kick }
        };
        let interrupt = Arc::new(Counted::default());
        let activation = Activation {
            memory: memory.clone(),
            features,
            queues: rings.iter().zip(&kicks).map(active).collect(),
            interrupt: interrupt.clone(),
        };
        let stopped = Stop::new(stop.try_clone().unwrap());
        let net = Box::new(Net::new(link, [2, 0, 0, 0, 0, 1], 1500, meters));
        let thread = std::thread::spawn(move || net.run(activation, &stopped).1);
        Self {
            memory,
            rings,
            host,
            kicks,
            stop,
            interrupt,
            thread,
            available: [0; 2],
        }
    }

    /// Offers a chain of `parts`, each an address and a length, and kicks.
    fn offer(&mut self, queue: usize, parts: &[(u64, u32)], flags: u16) {
        let ring = &self.rings[queue];
        let first = self.available[queue];
        for (at, (address, bytes)) in (first..).zip(parts) {
            let more = usize::from(at - first) + 1 < parts.len();
            let flags = flags | if more { NEXT } else { 0 };
            let descriptor = split::Descriptor::new(*address, *bytes, flags, at + 1);
            ring.desc_table()
                .store(at, RawDescriptor::from(descriptor))
                .unwrap();
        }
        let chains = ring.avail().idx().load();
        let place = ring.avail().ring().ref_at(chains.into()).unwrap();
        place.store(first);
        ring.avail().idx().store(chains + 1);
        self.available[queue] += u16::try_from(parts.len()).unwrap();
        self.kicks[queue].write(1).unwrap();
    }

    /// Waits for so many used buffers; heads and lengths.
    fn used(&self, queue: usize, count: u16) -> Vec<(u32, u32)> {
        let ring = &self.rings[queue];
        let begun = Instant::now();
        while ring.used().idx().load() < count {
            assert!(begun.elapsed() < DEADLINE, "no {count} used buffers");
            std::thread::yield_now();
        }
        assert_eq!(ring.used().idx().load(), count);
        let element = |at: u16| ring.used().ring().ref_at(at.into()).unwrap().load();
        (0..count)
            .map(element)
            .map(|used| (used.id(), used.len()))
            .collect()
    }

    fn bytes(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.memory
            .read_slice(&mut read, GuestAddress(address))
            .unwrap();
        read
    }

    fn stop(self) -> Vec<Queue> {
        self.stop.write(1).unwrap();
        self.thread.join().unwrap()
    }
}

fn memory() -> &'static GuestMemory {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
    Box::leak(Box::new(memory))
}

fn page(number: u64) -> u64 {
    BUFFERS + number * 0x1000
}

/// A frame of so many bytes, its header of zeros in front.
fn frame(bytes: usize) -> Vec<u8> {
    let content = (0..bytes).map(|at| u8::try_from(at % 251).unwrap());
    [0; HEADER_BYTES].into_iter().chain(content).collect()
}

#[test]
fn frame_of_the_host_arrives_in_the_next_buffer() {
    let mut card = Card::new(VIRTIO_NET_F_MRG_RXBUF);
    card.offer(0, &[(page(0), 2048)], WRITE);
    card.host.send(&frame(100)).unwrap();
    assert_eq!(card.used(0, 1), [(0, 112)]);
    let arrived = card.bytes(page(0), 112);
    assert_eq!(arrived[NUM_BUFFERS_OFFSET..HEADER_BYTES], [1, 0]);
    assert_eq!(arrived[HEADER_BYTES..], frame(100)[HEADER_BYTES..]);
}

#[test]
fn long_frame_fills_as_many_buffers_as_it_takes_and_no_more() {
    let mut card = Card::new(VIRTIO_NET_F_MRG_RXBUF);
    for number in 0..4 {
        card.offer(0, &[(page(number), 1000)], WRITE);
    }
    card.host.send(&frame(2500)).unwrap();
    assert_eq!(card.used(0, 3), [(0, 1000), (1, 1000), (2, 512)]);
    let arrived = [(0, 1000), (1, 1000), (2, 512)]
        .map(|(number, bytes)| card.bytes(page(number), bytes))
        .concat();
    assert_eq!(arrived[NUM_BUFFERS_OFFSET..HEADER_BYTES], [3, 0]);
    assert_eq!(arrived[HEADER_BYTES..], frame(2500)[HEADER_BYTES..]);
    let queues = card.stop();
    assert_eq!((queues[0].next_avail(), queues[0].next_used()), (3, 3));
}

#[test]
fn frame_without_buffers_waits_for_enough_of_them() {
    let mut card = Card::new(VIRTIO_NET_F_MRG_RXBUF);
    card.host.send(&frame(1500)).unwrap();
    card.offer(0, &[(page(0), 1000)], WRITE);
    // The other direction goes on meanwhile.
    card.memory
        .write_slice(&frame(60), GuestAddress(page(8)))
        .unwrap();
    card.offer(1, &[(page(8), 72)], 0);
    card.used(1, 1);
    assert_eq!(card.rings[0].used().idx().load(), 0);
    card.offer(0, &[(page(1), 1000)], WRITE);
    assert_eq!(card.used(0, 2), [(0, 1000), (1, 512)]);
}

#[test]
fn frame_that_can_never_fit_is_lost_and_the_next_one_arrives() {
    let mut card = Card::new(0);
    card.offer(0, &[(page(0), 1000)], WRITE);
    card.host.send(&frame(1500)).unwrap();
    card.host.send(&frame(50)).unwrap();
    assert_eq!(card.used(0, 1), [(0, 62)]);
}

#[test]
fn frames_of_the_guest_reach_the_link_and_bad_ones_are_lost() {
    let mut card = Card::new(0);
    let sent = frame(60);
    card.memory
        .write_slice(&sent, GuestAddress(page(0)))
        .unwrap();
    let outside = u64::try_from(MEMORY_BYTES).unwrap() - 8;
    let long = u32::try_from(FRAME_BYTES + 1).unwrap();
    card.offer(1, &[(page(0), 20)], 0);
    card.offer(1, &[(page(0), long)], 0);
    card.offer(1, &[(outside, 100)], 0);
    card.offer(1, &[(page(0), 12), (page(0) + 12, 60)], 0);
    let lengths: Vec<_> = card.used(1, 4).into_iter().map(|used| used.1).collect();
    assert_eq!(lengths, [0; 4]);
    let mut arrived = [0; 200];
    let bytes = card.host.recv(&mut arrived).unwrap();
    assert_eq!(arrived[..bytes], sent);
    assert_eq!(card.interrupt.needs_reset.load(ORDER), 0);
    assert!(card.interrupt.used.load(ORDER) > 0);
}

const ORDER: std::sync::atomic::Ordering = std::sync::atomic::Ordering::SeqCst;

#[test]
fn buffer_too_short_for_a_header_needs_a_reset() {
    let mut card = Card::new(VIRTIO_NET_F_MRG_RXBUF);
    card.offer(0, &[(page(0), 4)], WRITE);
    card.host.send(&frame(60)).unwrap();
    let interrupt = card.interrupt.clone();
    let queues = card.thread.join().unwrap();
    assert_eq!(interrupt.needs_reset.load(ORDER), 1);
    assert_eq!(queues[0].next_used(), 0);
}

#[test]
fn driver_is_told_when_what_it_waits_for_lies_among_a_frames_buffers() {
    let memory = memory();
    let mock = MockSplitQueue::create(memory, GuestAddress(0), SIZE);
    for (used_event, is_told) in [(0, true), (2, true), (3, false), (u16::MAX, false)] {
        let mut queue: Queue = mock.create_queue().unwrap();
        queue.set_event_idx(true);
        // The mock's own begins before the available ring has ended.
        queue.set_used_ring_address(Some(0x1000), None);
        let at = queue.avail_ring() + 4 + 2 * u64::from(SIZE);
        memory.write_obj(used_event, GuestAddress(at)).unwrap();
        used::add_used_together(&mut queue, memory, &[(0, 1), (1, 1), (2, 1)]).unwrap();
        let told = used::needs_notification(&mut queue, memory, 0).unwrap();
        assert_eq!(told, is_told, "used_event {used_event}");
    }
}

#[test]
fn frames_beyond_the_limit_wait_in_both_directions_and_are_not_lost() {
    let limit = Limit {
        bytes: None,
        frames: Some(20),
    };
    let mut card = Card::limited(VIRTIO_NET_F_MRG_RXBUF, limit);
    let begun = Instant::now();
    for number in 0..6 {
        card.offer(0, &[(page(number), 1000)], WRITE);
        card.offer(1, &[(page(8), 72)], 0);
        card.host.send(&frame(60)).unwrap();
    }
    card.used(0, 6);
    card.used(1, 6);
    // Three make the burst, the others have 50 ms between them.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(140), "{took:?}");
    (0..6).for_each(|_| assert_eq!(card.host.recv(&mut [0; 100]).unwrap(), 72));
}

#[test]
fn chain_that_is_longer_than_its_queue_needs_a_reset() {
    const INDIRECT: u16 = 4;
    for (descriptors, is_good) in [(SIZE, true), (SIZE + 1, false)] {
        let mut card = Card::new(0);
        for at in 0..descriptors {
            let flags = if at + 1 < descriptors { NEXT } else { 0 };
            let bytes = if at == 0 { 72 } else { 0 };
            let descriptor = split::Descriptor::new(page(1), bytes, flags, at + 1);
            let place = GuestAddress(page(0) + u64::from(at) * 16);
            let descriptor = RawDescriptor::from(descriptor);
            card.memory.write_obj(descriptor, place).unwrap();
        }
        card.offer(1, &[(page(0), u32::from(descriptors) * 16)], INDIRECT);
        if is_good {
            card.used(1, 1);
            assert_eq!(card.host.recv(&mut [0; 100]).unwrap(), 72);
        } else {
            let interrupt = card.interrupt.clone();
            card.thread.join().unwrap();
            assert_eq!(interrupt.needs_reset.load(ORDER), 1);
        }
    }
}

/// A link that takes a frame, behind its length, as it finds room for it.
struct Pipe {
    socket: UnixStream,
    rest: RefCell<Vec<u8>>,
}

impl Pipe {
    fn new(socket: UnixStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        let rest = RefCell::default();
        Self { socket, rest }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link for Pipe {
    fn offloads(&self) -> u64 {
        0
    }

    fn set_offloads(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        match (&self.socket).read(frame)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes),
        }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut rest = self.rest.borrow_mut();
        if rest.is_empty() {
            let frame = &frame[HEADER_BYTES..];
            let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
            *rest = [&length, frame].concat();
        }
        while !rest.is_empty() {
            let gone_bytes = (&self.socket).write(&rest)?;
            rest.drain(..gone_bytes);
        }
        Ok(())
    }
}

#[test]
fn frames_wait_for_a_link_without_room_and_none_is_lost() {
    let (mut host, link) = UnixStream::pair().unwrap();
    let link = Box::new(Pipe::new(link));
    let mut card = Card::on(link, (), 0, Limit::default());
    let sent = frame(60_000);
    card.memory
        .write_slice(&sent, GuestAddress(page(0)))
        .unwrap();
    // More than the socket holds: some wait in the ring, whose kick comes but once.
    for _ in 0..SIZE {
        card.offer(1, &[(page(0), 60_012)], 0);
    }
    let mut arrived = vec![0; 4 + 60_000];
    host.set_read_timeout(Some(DEADLINE)).unwrap();
    for _ in 0..SIZE {
        host.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived[..4], 60_000u32.to_be_bytes());
        assert!(arrived[4..] == sent[HEADER_BYTES..]);
    }
    card.used(1, SIZE);
}

#[test]
fn driver_is_told_when_the_link_is_gone() {
    let (host, link) = UnixStream::pair().unwrap();
    let link = Box::new(Pipe::new(link));
    let card = Card::on(link, (), 0, Limit::default());
    drop(host);
    let begun = Instant::now();
    let status = || {
        crate::lock::lock(&card.interrupt.config)
            .get(6..8)
            .map(<[u8]>::to_vec)
    };
    while status() != Some(vec![0, 0]) {
        assert!(begun.elapsed() < DEADLINE, "the link is up still");
        std::thread::yield_now();
    }
    card.stop();
}

#[test]
fn pair_of_which_a_queue_is_no_pairs_is_left_alone() {
    let memory = memory();
    let ring = MockSplitQueue::create(memory, GuestAddress(0), SIZE);
    let queue = |ready| {
        let mut queue: Queue = ring.create_queue().unwrap();
        queue.set_ready(ready);
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        ActiveQueue { queue, kick }
    };
    let interrupt = Arc::new(Counted::default());
    let activation = Activation {
        memory: memory.clone(),
        features: 0,
        // The driver's control queue, where it has one pair.
        queues: vec![queue(true), queue(false)],
        interrupt: interrupt.clone(),
    };
    let (_host, link) = UnixDatagram::pair().unwrap();
    let meters = [0; 2].map(|_| Meter::new(Limit::default()));
    let net = Net::new(Box::new(Socket(link)), [2; 6], 1500, meters);
    let stop = Stop::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let (_, queues) = Box::new(net).run(activation, &stop);
    assert_eq!(queues.len(), 2);
    assert_eq!(interrupt.needs_reset.load(ORDER), 0);
}

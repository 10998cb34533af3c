//! The guest's side: three rings in memory, buffers, kicks and interrupts by the rules of section 2.7.

use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::device::{Activation, ActiveQueue, Device, Interrupt, Stop};
use crate::memory::GuestMemory;
use crate::vsock::connection::BUF_ALLOC;
use crate::vsock::packet::Header;
use crate::vsock::spec::*;
use crate::vsock::{Connector, Vsock};

pub const GUEST_CID: u64 = 3;
pub const MEMORY_BYTES: u64 = 8 << 20;
pub const DEADLINE: Duration = Duration::from_secs(20);
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const RING_BYTES: u64 = 0x4000;
const RX_BUFFERS: u64 = 0x10_0000;
pub const RX_BUFFER_BYTES: u32 = 0xec0;
const TX_BUFFERS: u64 = 0x20_0000;
const TX_BUFFER_BYTES: u64 = 0x1_1000;

/// The interrupt line: counts, and wakes the test.
#[derive(Default)]
pub struct Line {
    raised: Mutex<u64>,
    woken: Condvar,
    pub broken: Mutex<bool>,
}

impl Interrupt for Line {
    fn used_buffer(&self) {
        *self.raised.lock().unwrap() += 1;
        self.woken.notify_all();
    }

    fn set_config(&self, _: Vec<u8>, _: bool) {}

    fn needs_reset(&self, _: &str) {
        *self.broken.lock().unwrap() = true;
        self.used_buffer();
    }
}

impl Line {
    pub fn count(&self) -> u64 {
        *self.raised.lock().unwrap()
    }
}

/// One ring as the driver sees it.
pub struct Ring {
    memory: GuestMemory,
    base: u64,
    size: u16,
    avail: u16,
    used: u16,
    event_idx: bool,
    kick: EventFd,
    pub kicks: u64,
}

impl Ring {
    pub fn new(memory: &GuestMemory, base: u64, size: u16, event_idx: bool) -> Self {
        let memory = memory.clone();
        let kick = EventFd::new(0).unwrap();
        Self {
            memory,
            base,
            size,
            avail: 0,
            used: 0,
            event_idx,
            kick,
            kicks: 0,
        }
    }

    fn avail_ring(&self) -> u64 {
        self.base + 0x1000
    }

    fn used_ring(&self) -> u64 {
        self.base + 0x2000
    }

    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.set_desc_table_address(Some(u32::try_from(self.base).unwrap()), None);
        queue.set_avail_ring_address(Some(u32::try_from(self.avail_ring()).unwrap()), None);
        queue.set_used_ring_address(Some(u32::try_from(self.used_ring()).unwrap()), None);
        queue.set_event_idx(self.event_idx);
        queue.set_ready(true);
        queue
    }

    pub fn active(&self, queue: Queue) -> ActiveQueue {
        ActiveQueue {
            queue,
            kick: self.kick.try_clone().unwrap(),
        }
    }

    pub fn describe(&self, at: u16, descriptor: Descriptor) {
        let place = GuestAddress(self.base + u64::from(at) * 16);
        self.memory
            .write_obj(RawDescriptor::from(descriptor), place)
            .unwrap();
    }

    /// Makes the chain that begins at `head` available, and kicks when the device asked for it.
    pub fn offer(&mut self, head: u16) {
        let slot = GuestAddress(self.avail_ring() + 4 + u64::from(self.avail % self.size) * 2);
        self.memory.write_obj(head, slot).unwrap();
        let old = self.avail;
        self.avail = self.avail.wrapping_add(1);
        let place = GuestAddress(self.avail_ring() + 2);
        self.memory
            .store(self.avail, place, Ordering::Release)
            .unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let at = GuestAddress(self.used_ring() + 4 + u64::from(self.size) * 8);
            let event: u16 = self.memory.load(at, Ordering::Acquire).unwrap();
            self.avail.wrapping_sub(event).wrapping_sub(1) < self.avail.wrapping_sub(old)
        } else {
            let flags: u16 = self
                .memory
                .load(GuestAddress(self.used_ring()), Ordering::Acquire)
                .unwrap();
            flags == 0
        };
        if wanted {
            self.kicks += 1;
            self.kick.write(1).unwrap();
        }
    }

    /// The next used element: head and length. Asks for an interrupt when there is none.
    pub fn reap(&mut self) -> Option<(u16, u32)> {
        let event = GuestAddress(self.avail_ring() + 4 + u64::from(self.size) * 2);
        self.memory
            .store(self.used, event, Ordering::Release)
            .unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
        let used: u16 = self
            .memory
            .load(GuestAddress(self.used_ring() + 2), Ordering::Acquire)
            .unwrap();
        if used == self.used {
            return None;
        }
        let slot = self.used_ring() + 4 + u64::from(self.used % self.size) * 8;
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        self.used = self.used.wrapping_add(1);
        Some((u16::try_from(head).unwrap(), len))
    }
}

pub fn memory() -> GuestMemory {
    let bytes = usize::try_from(MEMORY_BYTES).unwrap();
    GuestMemory::from_ranges(&[(GuestAddress(0), bytes)]).unwrap()
}

/// What a run gives back.
type AtRest = (Box<dyn Device>, Vec<Queue>);

/// A running device and its driver.
pub struct Guest {
    pub memory: GuestMemory,
    pub rx: Ring,
    pub tx: Ring,
    pub event: Ring,
    pub line: Arc<Line>,
    running: Option<JoinHandle<AtRest>>,
    stop: EventFd,
    tx_free: Vec<u16>,
    /// Descriptors a payload is spread over; 0: it shares one with the header.
    pub tx_pieces: u16,
    pub thread: Option<i32>,
}

impl Guest {
    /// Starts a device and gives it `buffers` receive buffers.
    pub fn start(connector: Connector, event_idx: bool, buffers: u16) -> Self {
        let memory = memory();
        let ring = |at: u64, size| Ring::new(&memory, at * RING_BYTES, size, event_idx);
        let (rx, tx, event) = (ring(1, 64), ring(2, 64), ring(3, 8));
        let mut guest = Self {
            rx,
            tx,
            event,
            line: Arc::new(Line::default()),
            running: None,
            stop: EventFd::new(0).unwrap(),
            tx_free: (0..8).collect(),
            tx_pieces: 1,
            thread: None,
            memory,
        };
        for at in 0..buffers {
            guest.offer_rx(at);
        }
        let queues = [&guest.rx, &guest.tx, &guest.event].map(Ring::queue);
        guest.resume(Box::new(Vsock::new(GUEST_CID, connector)), queues.into());
        guest
    }

    /// Runs a device on queues as they came back.
    pub fn resume(&mut self, device: Box<dyn Device>, queues: Vec<Queue>) {
        let rings = [&self.rx, &self.tx, &self.event];
        let queues = rings
            .iter()
            .zip(queues)
            .map(|(ring, queue)| ring.active(queue))
            .collect();
        let interrupt: Arc<dyn Interrupt> = self.line.clone();
        let activation = Activation {
            memory: self.memory.clone(),
            features: 0,
            queues,
            interrupt,
        };
        self.stop = EventFd::new(0).unwrap();
        let stop = Stop::new(self.stop.try_clone().unwrap());
        let (tell, told) = mpsc::channel();
        self.running = Some(std::thread::spawn(move || {
            tell.send(std::fs::read_link("/proc/thread-self").unwrap())
                .unwrap();
            device.run(activation, &stop)
        }));
        let link = told.recv().unwrap();
        self.thread = link
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
    }

    /// Stops the device.
    pub fn stop(&mut self) -> AtRest {
        self.stop.write(1).unwrap();
        self.running.take().unwrap().join().unwrap()
    }

    pub fn offer_rx(&mut self, at: u16) {
        let place = RX_BUFFERS + u64::from(at) * 0x1000;
        self.rx
            .describe(at, Descriptor::new(place, RX_BUFFER_BYTES, WRITE, 0));
        self.rx.offer(at);
    }

    /// Sends a packet, its payload spread over `tx_pieces` descriptors.
    pub fn send_raw(&mut self, header: Header, payload: &[u8]) {
        let deadline = Instant::now() + DEADLINE;
        let slot = loop {
            while let Some((head, _)) = self.tx.reap() {
                self.tx_free.push(head / 8);
            }
            match self.tx_free.pop() {
                Some(slot) => break slot,
                None => self.wait(deadline),
            }
        };
        let place = TX_BUFFERS + u64::from(slot) * TX_BUFFER_BYTES;
        let bytes = [header.as_slice(), payload].concat();
        self.memory
            .write_slice(&bytes, GuestAddress(place))
            .unwrap();
        let payload_bytes = u32::try_from(payload.len()).unwrap();
        let head = slot * 8;
        if self.tx_pieces == 0 || payload.is_empty() {
            let descriptor = Descriptor::new(place, 44 + payload_bytes, 0, 0);
            self.tx.describe(head, descriptor);
            return self.tx.offer(head);
        }
        self.tx
            .describe(head, Descriptor::new(place, 44, NEXT, head + 1));
        let piece = payload_bytes.div_ceil(u32::from(self.tx_pieces));
        let mut sent = 0;
        for at in 1.. {
            let len = piece.min(payload_bytes - sent);
            let last = sent + len == payload_bytes;
            let flags = if last { 0 } else { NEXT };
            let from = place + 44 + u64::from(sent);
            self.tx
                .describe(head + at, Descriptor::new(from, len, flags, head + at + 1));
            sent += len;
            if last {
                break;
            }
        }
        self.tx.offer(head);
    }

    /// Blocks until an interrupt or `deadline`.
    fn wait(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "nothing came from the device within {DEADLINE:?}"
        );
        assert!(
            !*self.line.broken.lock().unwrap(),
            "the device asked to be reset"
        );
        let seen = self.line.raised.lock().unwrap();
        // An interrupt may have come before the lock: look at the rings again soon.
        let _ = self
            .line
            .woken
            .wait_timeout(seen, left.min(Duration::from_millis(50)))
            .unwrap();
    }

    /// The next packet, if it is there; its buffer goes back unless `keep`.
    pub fn try_receive(&mut self, keep: bool) -> Option<(Header, Vec<u8>)> {
        let (head, len) = self.rx.reap()?;
        assert!((44..=RX_BUFFER_BYTES).contains(&len), "used length {len}");
        let place = RX_BUFFERS + u64::from(head) * 0x1000;
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.memory
            .read_slice(&mut bytes, GuestAddress(place))
            .unwrap();
        let payload = bytes.split_off(HEADER_BYTES);
        let header: Header = self.memory.read_obj(GuestAddress(place)).unwrap();
        assert_eq!(usize::try_from(header.len).unwrap(), payload.len());
        if !keep {
            self.offer_rx(head);
        }
        Some((header, payload))
    }

    /// The next packet.
    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(packet) = self.try_receive(false) {
                return packet;
            }
            self.wait(deadline);
        }
    }

    /// The next packet, which must be of this operation.
    pub fn expect(&mut self, op: u16) -> Header {
        let (header, _) = self.receive();
        assert_eq!(header.op, op, "{header:?}");
        header
    }

    /// A header from the guest's port 1000 to `port` of the host.
    pub fn header(op: u16, port: u32) -> Header {
        Header {
            src_cid: GUEST_CID,
            dst_cid: VMADDR_CID_HOST,
            src_port: 1000,
            dst_port: port,
            socket_type: VIRTIO_VSOCK_TYPE_STREAM,
            op,
            buf_alloc: BUF_ALLOC,
            ..Header::default()
        }
    }

    pub fn send(&mut self, op: u16, port: u32) {
        self.send_raw(Self::header(op, port), &[]);
    }

    pub fn send_payload(&mut self, port: u32, payload: &[u8], fwd_cnt: u32) {
        let len = u32::try_from(payload.len()).unwrap();
        let header = Header {
            len,
            fwd_cnt,
            ..Self::header(VIRTIO_VSOCK_OP_RW, port)
        };
        self.send_raw(header, payload);
    }

    pub fn shut(&mut self, port: u32, flags: u32) {
        let header = Header {
            flags,
            ..Self::header(VIRTIO_VSOCK_OP_SHUTDOWN, port)
        };
        self.send_raw(header, &[]);
    }

    pub fn connect(&mut self, port: u32) -> Header {
        self.send(VIRTIO_VSOCK_OP_REQUEST, port);
        self.expect(VIRTIO_VSOCK_OP_RESPONSE)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(running) = self.running.take() {
            let ended = running.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// A connector for ports 1 to 9, each time with a new pair whose other end comes out of the channel.
pub fn pairs() -> (Connector, mpsc::Receiver<UnixStream>) {
    let (give, take) = mpsc::channel();
    let connector: Connector = Box::new(move |port| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (1..10).contains(&port).then(|| {
            theirs.set_read_timeout(Some(DEADLINE)).unwrap();
            theirs.set_write_timeout(Some(DEADLINE)).unwrap();
            let _ = give.send(theirs);
            ours
        })
    });
    (connector, take)
}

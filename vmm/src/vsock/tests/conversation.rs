//! A guest that speaks the protocol, its packets cut into descriptors in every way, and then with a few faults in
//! these or in the headers. The device is run turn by turn, each time with the stop already signalled.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use virtio_queue::Queue;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::driver::{GUEST_CID, Guest, Line, Ring, pairs};
use crate::device::{Activation, Device, Stop};
use crate::memory::GuestMemory;
use crate::vsock::Vsock;
use crate::vsock::packet::Header;
use crate::vsock::spec::*;

/// Small, so that it can be compared as a whole.
const MEMORY: usize = 0x4_0000;
const RING_SIZE: u16 = 64;
const TX_BUFFERS: u64 = 0x1_0000;
const RX_BUFFERS: u64 = 0x3_0000;
const RX_BUFFER_BYTES: u32 = 600;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What the guest does on the connection to one of three ports.
#[derive(Clone, Debug)]
enum Said {
    Request,
    Payload(u32),
    Shutdown(u32),
    Other(u16),
}

#[derive(Clone, Debug)]
struct Step {
    port: u32,
    said: Said,
    /// Most bytes of a descriptor.
    piece: u32,
}

fn step() -> impl Strategy<Value = Step> {
    let said = prop_oneof![
        4 => Just(Said::Request),
        8 => (0u32..1500).prop_map(Said::Payload),
        1 => (0u32..4).prop_map(Said::Shutdown),
        2 => (0u16..9).prop_map(Said::Other),
    ];
    let piece = prop_oneof![Just(44u32), Just(2000), 400u32..1000];
    (1u32..4, said, piece).prop_map(|(port, said, piece)| Step { port, said, piece })
}

/// One fault of a TX (true) or RX descriptor, or of a header byte.
#[derive(Clone, Debug)]
enum Defect {
    Address(bool, u64),
    Length(bool, u32),
    Flags(bool, u16),
    Next(bool, u16),
    Header(usize, u8),
}

fn defects() -> impl Strategy<Value = Vec<(Index, Defect)>> {
    let end = MEMORY as u64;
    let tx = any::<bool>;
    let address = prop_oneof![
        Just(end - 1),
        Just(end),
        Just(u64::MAX),
        TX_BUFFERS..end,
        any::<u64>()
    ];
    let length = prop_oneof![Just(0u32), Just(43), Just(u32::MAX), 0..70_000u32];
    let next = prop_oneof![0..RING_SIZE + 2, any::<u16>()];
    let defect = prop_oneof![
        (tx(), address).prop_map(|(tx, address)| Defect::Address(tx, address)),
        (tx(), length).prop_map(|(tx, length)| Defect::Length(tx, length)),
        (tx(), 0u16..8).prop_map(|(tx, flags)| Defect::Flags(tx, flags)),
        (tx(), next).prop_map(|(tx, next)| Defect::Next(tx, next)),
        (0..HEADER_BYTES, any::<u8>()).prop_map(|(at, value)| Defect::Header(at, value)),
    ];
    prop::collection::vec((any::<Index>(), defect), 0..4)
}

/// Address, length, flags and successor of a descriptor.
type Fields = (u64, u32, u16, u16);

/// Packets and receive buffers as they are to lie in memory.
#[derive(Default)]
struct Layout {
    tx: Vec<Fields>,
    tx_heads: Vec<u16>,
    rx: Vec<Fields>,
    /// Where the headers lie.
    headers: Vec<u64>,
}

impl Layout {
    fn new(memory: &GuestMemory, steps: &[Step]) -> Self {
        let mut layout = Self::default();
        let mut counters = BTreeMap::new();
        let mut at = TX_BUFFERS;
        for step in steps {
            let packet = packet(step, counters.entry(step.port).or_default());
            let descriptors = packet.len().div_ceil(step.piece as usize);
            if layout.tx.len() + descriptors > usize::from(RING_SIZE) {
                break;
            }
            memory.write_slice(&packet, GuestAddress(at)).unwrap();
            layout.headers.push(at);
            layout.tx_heads.push(index(layout.tx.len()));
            let mut sent = 0;
            while sent < packet.len() {
                let bytes = (packet.len() - sent).min(step.piece as usize);
                let next = index(layout.tx.len() + 1);
                let place = at + sent as u64;
                layout
                    .tx
                    .push((place, bytes.try_into().unwrap(), NEXT, next));
                sent += bytes;
            }
            if let Some(last) = layout.tx.last_mut() {
                (last.2, last.3) = (0, 0);
            }
            at += 2000;
        }
        for buffer in 0..RING_SIZE {
            let place = RX_BUFFERS + u64::from(buffer) * u64::from(RX_BUFFER_BYTES);
            layout.rx.push((place, RX_BUFFER_BYTES, WRITE, 0));
        }
        layout
    }

    fn spoil(&mut self, memory: &GuestMemory, defects: &[(Index, Defect)]) {
        for (which, defect) in defects {
            if let Defect::Header(at, value) = defect {
                if !self.headers.is_empty() {
                    let header = self.headers[which.index(self.headers.len())];
                    let place = GuestAddress(header + *at as u64);
                    memory.write_obj(*value, place).unwrap();
                }
                continue;
            }
            let (Defect::Address(tx, _)
            | Defect::Length(tx, _)
            | Defect::Flags(tx, _)
            | Defect::Next(tx, _)) = *defect
            else {
                continue;
            };
            let side = if tx { &mut self.tx } else { &mut self.rx };
            if side.is_empty() {
                continue;
            }
            // Few RX buffers are used: the first are worth more.
            let count = if tx { side.len() } else { 8 };
            let descriptor = &mut side[which.index(count)];
            match defect {
                Defect::Address(_, address) => descriptor.0 = *address,
                Defect::Length(_, bytes) => descriptor.1 = *bytes,
                Defect::Flags(_, flags) => descriptor.2 = *flags,
                Defect::Next(_, next) => descriptor.3 = *next,
                Defect::Header(..) => {}
            }
        }
    }

    fn describe(&self, rx: &Ring, tx: &Ring) {
        for (ring, fields) in [(rx, &self.rx), (tx, &self.tx)] {
            for (at, (address, bytes, flags, next)) in (0u16..).zip(fields) {
                ring.describe(at, Descriptor::new(*address, *bytes, *flags, *next));
            }
        }
    }
}

fn index(at: usize) -> u16 {
    u16::try_from(at).unwrap()
}

/// A packet; payloads of one port count up from byte to byte, `sent` being how many there were.
fn packet(step: &Step, sent: &mut usize) -> Vec<u8> {
    let (op, flags, len) = match step.said {
        Said::Request => (VIRTIO_VSOCK_OP_REQUEST, 0, 0),
        Said::Payload(len) => (VIRTIO_VSOCK_OP_RW, 0, len),
        Said::Shutdown(flags) => (VIRTIO_VSOCK_OP_SHUTDOWN, flags, 0),
        Said::Other(op) => (op, 0, 0),
    };
    let header = Header {
        flags,
        len,
        ..Guest::header(op, step.port)
    };
    let payload = (*sent..*sent + len as usize).map(|at| at.to_le_bytes()[0]);
    *sent += len as usize;
    header.as_slice().iter().copied().chain(payload).collect()
}

/// The device between two turns.
struct AtRest {
    device: Box<dyn Device>,
    queues: Vec<Queue>,
}

impl AtRest {
    /// Each queue is served once.
    fn turn(self, memory: &GuestMemory, rings: &[Ring; 3]) -> Self {
        let stopped = EventFd::new(0).unwrap();
        stopped.write(1).unwrap();
        let active = rings.iter().zip(self.queues);
        let activation = Activation {
            memory: memory.clone(),
            features: 0,
            queues: active.map(|(ring, queue)| ring.active(queue)).collect(),
            interrupt: Arc::new(Line::default()),
        };
        let (device, queues) = self.device.run(activation, &Stop::new(stopped));
        Self { device, queues }
    }
}

fn contents(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

/// What has come, without waiting.
fn read_all(mut stream: &UnixStream, into: &mut Vec<u8>) {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => into.extend_from_slice(&buffer[..read]),
            Err(error) => {
                assert!(matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionReset
                ));
                return;
            }
        }
    }
}

proptest! {
    #[test]
    fn conversation_with_faults_keeps_each_stream_in_order_and_writes_where_it_may(
        steps in prop::collection::vec(step(), 1..16), defects in defects(), turns in 1usize..4
    ) {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let mut layout = Layout::new(&memory, &steps);
        layout.spoil(&memory, &defects);
        let mut rings = [1, 2, 3].map(|at| Ring::new(&memory, at * 0x4000, RING_SIZE, true));
        layout.describe(&rings[0], &rings[1]);
        let before = contents(&memory);
        let (connector, accepted) = pairs();
        let mut at_rest = AtRest {
            device: Box::new(Vsock::new(GUEST_CID, connector)),
            queues: rings.iter().map(Ring::queue).collect(),
        };
        let (mut streams, mut heard) = (Vec::new(), Vec::new());
        let share = layout.tx_heads.len().div_ceil(turns).max(1);
        let buffers = usize::from(RING_SIZE) / turns;
        for (turn, heads) in layout.tx_heads.chunks(share).enumerate() {
            for buffer in turn * buffers..(turn + 1) * buffers {
                rings[0].offer(index(buffer));
            }
            heads.iter().for_each(|head| rings[1].offer(*head));
            at_rest = at_rest.turn(&memory, &rings);
            streams.extend(accepted.try_iter());
            heard.resize(streams.len(), Vec::new());
            for (stream, heard) in streams.iter().zip(&mut heard) {
                read_all(stream, heard);
                let _ = (&*stream).write(&[1; 700]);
            }
        }
        drop(at_rest.turn(&memory, &rings));
        for (stream, heard) in streams.iter().zip(&mut heard) {
            read_all(stream, heard);
        }
        if defects.is_empty() {
            for heard in &heard {
                prop_assert!(heard.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "bytes lost or out of order");
            }
        }

        // All that has changed lies in a ring or where the driver let the device write.
        let mut after = contents(&memory);
        let mut allowed: Vec<_> = std::iter::once(0x4000..0x1_0000).collect();
        for (address, bytes, flags, _) in &layout.rx {
            let start = usize::try_from(*address).unwrap().min(MEMORY);
            let end = start.saturating_add(usize::try_from(*bytes).unwrap()).min(MEMORY);
            if flags & WRITE != 0 {
                allowed.push(start..end);
            }
        }
        for range in allowed {
            after[range.clone()].copy_from_slice(&before[range]);
        }
        prop_assert!(after == before, "memory changed that the device was not given");
    }
}

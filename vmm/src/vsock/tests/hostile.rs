//! What dishonest guests get.

use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::driver::{GUEST_CID, Guest, Line, MEMORY_BYTES, Ring, memory, pairs};
use crate::device::{Activation, Device, Stop};
use crate::vsock::Vsock;
use crate::vsock::packet::Header;
use crate::vsock::spec::*;
use crate::vsock::table::MAX_CONNECTIONS;

#[test]
fn packet_of_unknown_connection_is_reset() {
    let (connector, _streams) = pairs();
    let mut guest = Guest::start(connector, true, 8);
    for op in [
        VIRTIO_VSOCK_OP_RW,
        VIRTIO_VSOCK_OP_SHUTDOWN,
        VIRTIO_VSOCK_OP_CREDIT_UPDATE,
        77,
    ] {
        guest.send(op, 5);
        let reset = guest.expect(VIRTIO_VSOCK_OP_RST);
        assert_eq!((reset.src_cid, reset.dst_cid), (2, 3));
        assert_eq!((reset.src_port, reset.dst_port), (5, 1000));
    }
}

#[test]
fn packet_of_wrong_type_or_destination_is_reset_and_of_wrong_source_is_dropped() {
    let (connector, streams) = pairs();
    let mut guest = Guest::start(connector, true, 8);
    let request = Guest::header(VIRTIO_VSOCK_OP_REQUEST, 1);
    guest.send_raw(
        Header {
            socket_type: 2,
            ..request
        },
        &[],
    );
    assert_eq!(guest.expect(VIRTIO_VSOCK_OP_RST).socket_type, 2);
    guest.send_raw(
        Header {
            dst_cid: 9,
            ..request
        },
        &[],
    );
    assert_eq!({ guest.expect(VIRTIO_VSOCK_OP_RST).src_cid }, 9);
    guest.send_raw(
        Header {
            src_cid: 9,
            ..request
        },
        &[],
    );
    guest.send(VIRTIO_VSOCK_OP_RST, 5);
    assert!(streams.try_recv().is_err());
    guest.connect(1);
}

#[test]
fn packet_longer_than_its_chain_is_dropped_and_the_next_one_served() {
    let (connector, _streams) = pairs();
    let mut guest = Guest::start(connector, true, 8);
    guest.connect(1);
    let payload = Guest::header(VIRTIO_VSOCK_OP_RW, 1);
    for len in [101, 0xffff_ffff] {
        guest.send_raw(Header { len, ..payload }, &[0; 100]);
    }
    guest.connect(2);
}

#[test]
fn operation_unknown_resets_the_connection() {
    let (connector, _streams) = pairs();
    let mut guest = Guest::start(connector, true, 8);
    guest.connect(1);
    guest.send(77, 1);
    guest.expect(VIRTIO_VSOCK_OP_RST);
}

#[test]
fn connections_beyond_the_cap_are_reset() {
    let (connector, streams) = pairs();
    drop(streams);
    let held = std::sync::Mutex::new(Vec::new());
    let mut connector = connector;
    let keeping = move |port| {
        // One socket for all: the connections are counted, not used.
        let mut held = held.lock().unwrap();
        if held.is_empty() {
            held.push(connector(port)?);
        }
        held[0].try_clone().ok()
    };
    let mut guest = Guest::start(Box::new(keeping), true, 32);
    let (mut granted, mut refused) = (0, 0);
    for src_port in 0..1100 {
        let request = Guest::header(VIRTIO_VSOCK_OP_REQUEST, 1);
        guest.send_raw(
            Header {
                src_port,
                ..request
            },
            &[],
        );
    }
    while granted + refused < 1100 {
        match guest.receive().0.op {
            VIRTIO_VSOCK_OP_RESPONSE => granted += 1,
            VIRTIO_VSOCK_OP_RST => refused += 1,
            VIRTIO_VSOCK_OP_SHUTDOWN => {}
            op => panic!("operation {op}"),
        }
    }
    assert_eq!(granted, MAX_CONNECTIONS);
}

#[test]
fn requests_and_resets_without_receive_buffers_leave_nothing_behind() {
    let (connector, streams) = pairs();
    let mut guest = Guest::start(connector, true, 0);
    for _ in 0..5000 {
        guest.send(VIRTIO_VSOCK_OP_REQUEST, 1);
        guest.send(VIRTIO_VSOCK_OP_RST, 1);
        while streams.try_recv().is_ok() {}
    }
    for at in 0..8 {
        guest.offer_rx(at);
    }
    guest.connect(2);
}

fn header() -> impl Strategy<Value = Header> {
    let cid = || prop_oneof![8 => Just(GUEST_CID), 8 => Just(VMADDR_CID_HOST), 1 => any::<u64>()];
    let len = prop_oneof![Just(0), 0..5000u32, any::<u32>()];
    let ends = (cid(), cid(), 0..3u32, 0..12u32);
    (ends, len, 0..4u16, 0..10u16, any::<(u32, u32, u32)>()).prop_map(
        |((src_cid, dst_cid, src_port, dst_port), len, socket_type, op, rest)| Header {
            src_cid,
            dst_cid,
            src_port,
            dst_port,
            len,
            socket_type: socket_type.min(2),
            op,
            flags: rest.0,
            buf_alloc: rest.1,
            fwd_cnt: rest.2,
        },
    )
}

/// Where descriptors point: at good headers mostly, at the edges and beyond sometimes.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let place = prop_oneof![
        8 => (0..16u64).prop_map(|at| 0x10_0000 + at * 64),
        2 => 0..MEMORY_BYTES,
        1 => MEMORY_BYTES - 100..MEMORY_BYTES + 100,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => Just(44u32), 4 => 0..5000u32, 1 => any::<u32>()];
    let flags = prop_oneof![4 => Just(0u16), 4 => Just(2u16), 4 => 0..4u16, 1 => any::<u16>()];
    (
        place,
        len,
        flags,
        prop_oneof![8 => 0..16u16, 1 => any::<u16>()],
    )
}

proptest! {
    #[test]
    fn hostile_rings_and_packets_end_in_resets_or_needs_reset(
        headers in prop::collection::vec(header(), 16),
        tx in prop::collection::vec(descriptor(), 16),
        rx in prop::collection::vec(descriptor(), 16),
        heads in prop::collection::vec(
            (prop_oneof![20 => 0..16u16, 1 => any::<u16>()], any::<bool>()), 1..30),
        avail_lie in prop_oneof![10 => Just(None), 1 => any::<u16>().prop_map(Some)],
    ) {
        let memory = memory();
        for (at, header) in (0x10_0000u64..).step_by(64).zip(&headers) {
            memory.write_slice(header.as_slice(), GuestAddress(at)).unwrap();
        }
        let mut rings = [1, 2, 3].map(|at| Ring::new(&memory, at * 0x4000, 16, true));
        for (ring, descriptors) in rings.iter().zip([&rx, &tx]) {
            for (at, (place, len, flags, next)) in (0u16..).zip(descriptors) {
                ring.describe(at, Descriptor::new(*place, *len, *flags, *next));
            }
        }
        for (head, is_rx) in heads.chunks(8).flat_map(|heads| heads.iter().take(7)) {
            rings[usize::from(!is_rx)].offer(*head);
        }
        if let Some(lie) = avail_lie {
            memory.write_obj(lie, GuestAddress(2 * 0x4000 + 0x1002)).unwrap();
        }
        let (connector, streams) = pairs();
        let mut device: Box<dyn Device> = Box::new(Vsock::new(GUEST_CID, connector));
        let mut queues: Vec<_> = rings.iter().map(Ring::queue).collect();
        // Stopped before it begins, a run serves each queue once and sees what its sockets have.
        for _ in 0..3 {
            let stopped = EventFd::new(0).unwrap();
            stopped.write(1).unwrap();
            let active = rings.iter().zip(queues).map(|(ring, queue)| ring.active(queue));
            let activation = Activation {
                memory: memory.clone(),
                features: 0,
                queues: active.collect(),
                interrupt: Arc::new(Line::default()),
            };
            (device, queues) = device.run(activation, &Stop::new(stopped));
            prop_assert_eq!(queues.len(), 3);
            while let Ok(mut stream) = streams.try_recv() {
                let _ = std::io::Write::write(&mut stream, &[1; 3000]);
            }
        }
    }
}

//! What honest guests and hosts see.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::driver::{DEADLINE, Guest, pairs};
use crate::vsock::connection::BUF_ALLOC;
use crate::vsock::packet::Header;
use crate::vsock::spec::*;

fn start() -> (Guest, Receiver<UnixStream>) {
    let (connector, streams) = pairs();
    (Guest::start(connector, true, 32), streams)
}

fn connected() -> (Guest, UnixStream) {
    let (mut guest, streams) = start();
    guest.connect(1);
    (guest, streams.recv_timeout(DEADLINE).unwrap())
}

fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn request_to_known_port_is_answered_with_credit() {
    let (mut guest, streams) = start();
    let response = guest.connect(7);
    assert_eq!((response.src_cid, response.dst_cid), (2, 3));
    assert_eq!((response.src_port, response.dst_port), (7, 1000));
    assert_eq!((response.buf_alloc, response.fwd_cnt), (BUF_ALLOC, 0));
    assert!(streams.try_recv().is_ok());
}

#[test]
fn request_to_unknown_port_is_reset() {
    let (mut guest, _streams) = start();
    guest.send(VIRTIO_VSOCK_OP_REQUEST, 99);
    let reset = guest.expect(VIRTIO_VSOCK_OP_RST);
    assert_eq!((reset.src_port, reset.dst_port), (99, 1000));
}

#[test]
fn request_repeated_on_a_connection_resets_it() {
    let (mut guest, mut host) = connected();
    guest.send(VIRTIO_VSOCK_OP_REQUEST, 1);
    guest.expect(VIRTIO_VSOCK_OP_RST);
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

#[test]
fn payload_goes_both_ways_with_and_without_event_index() {
    for event_idx in [true, false] {
        for pieces in [0, 1, 5] {
            let (connector, streams) = pairs();
            let mut guest = Guest::start(connector, event_idx, 32);
            guest.tx_pieces = pieces;
            guest.connect(1);
            let mut host = streams.recv_timeout(DEADLINE).unwrap();
            for len in [1, 44, 3000, 40_000] {
                let sent = bytes(len);
                guest.send_payload(1, &sent, 0);
                let mut got = vec![0; len];
                host.read_exact(&mut got).unwrap();
                assert!(got == sent, "{len} bytes to the host differ");
                host.write_all(&sent).unwrap();
                let mut back = Vec::new();
                while back.len() < len {
                    back.extend(guest.receive().1);
                }
                assert!(back == sent, "{len} bytes to the guest differ");
            }
        }
    }
}

#[test]
fn payload_of_unread_host_ends_at_the_credit_and_arrives_later() {
    let (mut guest, mut host) = connected();
    let sent = bytes(4 << 20);
    let (mut at, mut fwd_cnt) = (0, 0);
    // The guest sends as long as the device takes bytes off it.
    loop {
        let room = BUF_ALLOC as usize - (at - fwd_cnt as usize);
        if room == 0 {
            break;
        }
        let end = at + room.min(60_000);
        guest.send_payload(1, &sent[at..end], 0);
        at = end;
        guest.send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1);
        loop {
            let update = guest.expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
            let news = update.fwd_cnt != fwd_cnt;
            fwd_cnt = update.fwd_cnt;
            if !news || guest.try_receive(false).is_none() {
                break;
            }
        }
    }
    assert!(
        at < 2 << 20,
        "{at} bytes vanished into a host that reads nothing"
    );
    // Then the host reads, hears of the freed space, and gets every byte.
    let expected = sent[..at].to_vec();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        host.read_exact(&mut got).unwrap();
        assert!(got == expected, "bytes differ");
        host
    });
    while fwd_cnt as usize + BUF_ALLOC as usize / 4 <= at {
        fwd_cnt = guest.expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE).fwd_cnt;
    }
    reader.join().unwrap();
}

#[test]
fn payload_over_the_credit_resets_the_connection() {
    let (mut guest, host) = connected();
    let chunk = bytes(60_000);
    for _ in 0..30 {
        guest.send_payload(1, &chunk, 0);
    }
    while guest.receive().0.op != VIRTIO_VSOCK_OP_RST {}
    drop(host);
}

#[test]
fn payload_to_guest_stops_at_the_guests_credit() {
    let (mut guest, streams) = start();
    let header = Header {
        buf_alloc: 5000,
        ..Guest::header(VIRTIO_VSOCK_OP_REQUEST, 1)
    };
    guest.send_raw(header, &[]);
    guest.expect(VIRTIO_VSOCK_OP_RESPONSE);
    let mut host = streams.recv_timeout(DEADLINE).unwrap();
    let sent = bytes(12_000);
    host.write_all(&sent).unwrap();
    let mut got = Vec::new();
    for fwd_cnt in [0, 5000, 10_000] {
        let update = Guest::header(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1);
        guest.send_raw(
            Header {
                buf_alloc: 5000,
                fwd_cnt,
                ..update
            },
            &[],
        );
        while got.len() < (fwd_cnt as usize + 5000).min(sent.len()) {
            got.extend(guest.receive().1);
        }
        assert!(guest.try_receive(false).is_none(), "more than the credit");
    }
    assert!(got == sent, "bytes differ");
}

#[test]
fn host_end_of_stream_reaches_the_guest_after_the_bytes_while_the_guest_still_sends() {
    let (mut guest, mut host) = connected();
    let sent = bytes(20_000);
    host.write_all(&sent).unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    let shutdown = loop {
        let (header, payload) = guest.receive();
        got.extend(payload);
        if header.op != VIRTIO_VSOCK_OP_RW {
            break header;
        }
    };
    assert!(got == sent, "bytes differ");
    assert_eq!(shutdown.op, VIRTIO_VSOCK_OP_SHUTDOWN);
    assert_eq!(shutdown.flags, VIRTIO_VSOCK_SHUTDOWN_F_SEND);
    guest.send_payload(1, b"late", 0);
    let mut late = [0; 4];
    host.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"late");
    guest.shut(
        1,
        VIRTIO_VSOCK_SHUTDOWN_F_SEND | VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE,
    );
    // The host's end is hung up on now, which the guest may hear of before its confirmation.
    while guest.receive().0.op != VIRTIO_VSOCK_OP_RST {}
}

#[test]
fn guest_end_of_stream_reaches_the_host_after_buffered_bytes_while_the_host_still_sends() {
    let (mut guest, mut host) = connected();
    let sent = bytes(5 * 50_000);
    for chunk in sent.chunks(50_000) {
        guest.send_payload(1, chunk, 0);
    }
    guest.shut(1, VIRTIO_VSOCK_SHUTDOWN_F_SEND);
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert!(got == sent, "bytes differ");
    host.write_all(b"answer").unwrap();
    let answer = loop {
        let (header, payload) = guest.receive();
        if header.op == VIRTIO_VSOCK_OP_RW {
            break payload;
        }
    };
    assert_eq!(answer, b"answer");
}

#[test]
fn guest_close_is_confirmed_only_when_the_host_has_the_bytes() {
    let (mut guest, mut host) = connected();
    let sent = bytes(5 * 50_000);
    for chunk in sent.chunks(50_000) {
        guest.send_payload(1, chunk, 0);
    }
    guest.shut(
        1,
        VIRTIO_VSOCK_SHUTDOWN_F_SEND | VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE,
    );
    // Whatever the socket took was news to the guest; the rest waits for the reader.
    guest.send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1);
    guest.expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert!(got == sent, "bytes differ");
    while guest.receive().0.op != VIRTIO_VSOCK_OP_RST {}
}

#[test]
fn guest_reset_lets_the_host_have_the_bytes_sent_before() {
    let (mut guest, mut host) = connected();
    let sent = bytes(5 * 50_000);
    for chunk in sent.chunks(50_000) {
        guest.send_payload(1, chunk, 0);
    }
    guest.send(VIRTIO_VSOCK_OP_RST, 1);
    // The ports are free at once.
    while guest.try_receive(false).is_some() {}
    guest.send(VIRTIO_VSOCK_OP_REQUEST, 1);
    while guest.receive().0.op != VIRTIO_VSOCK_OP_RESPONSE {}
    let mut got = Vec::new();
    host.read_to_end(&mut got).unwrap();
    assert!(got == sent, "bytes differ");
}

#[test]
fn host_that_reads_no_more_is_told_to_the_guest_which_still_gets_its_bytes() {
    let (mut guest, mut host) = connected();
    host.shutdown(Shutdown::Read).unwrap();
    guest.send_payload(1, b"into the void", 0);
    let shutdown = guest.expect(VIRTIO_VSOCK_OP_SHUTDOWN);
    assert_eq!(shutdown.flags, VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE);
    guest.send_payload(1, b"in flight", 0);
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.receive().1, b"still here");
}

#[test]
fn host_that_closes_is_told_to_the_guest_in_full() {
    let (mut guest, mut host) = connected();
    host.write_all(b"last words").unwrap();
    drop(host);
    assert_eq!(guest.receive().1, b"last words");
    let mut flags = 0;
    while flags != VIRTIO_VSOCK_SHUTDOWN_F_SEND | VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE {
        flags |= guest.expect(VIRTIO_VSOCK_OP_SHUTDOWN).flags;
    }
}

#[test]
fn guest_that_receives_no_more_breaks_the_hosts_pipe() {
    let (mut guest, mut host) = connected();
    guest.shut(1, VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE);
    let deadline = Instant::now() + DEADLINE;
    let error = loop {
        assert!(Instant::now() < deadline);
        if let Err(error) = host.write_all(&[0; 1000]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest.send_payload(1, b"one way", 0);
    let mut got = [0; 7];
    host.read_exact(&mut got).unwrap();
}

#[test]
fn streams_of_megabytes_both_ways_at_once_arrive_intact() {
    let (mut guest, host) = connected();
    guest.tx_pieces = 3;
    let sent = bytes(16 << 20);
    let (mut to, mut from) = (host.try_clone().unwrap(), host);
    let (writes, expects) = (sent.clone(), sent.clone());
    let writer = std::thread::spawn(move || {
        to.write_all(&writes).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    });
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        from.read_to_end(&mut got).unwrap();
        assert!(got == expects, "bytes to the host differ");
    });
    let began = Instant::now();
    let (mut at, mut fwd_cnt, mut got) = (0, 0, Vec::new());
    let (mut ended, mut shut) = (false, false);
    let mut told = 0;
    while !(ended && shut) {
        let room = BUF_ALLOC as usize - (at - fwd_cnt as usize);
        let len = room.min(65_536).min(sent.len() - at);
        let received = u32::try_from(got.len()).unwrap();
        if len > 0 {
            guest.send_payload(1, &sent[at..at + len], received);
            told = received;
            at += len;
        } else if at == sent.len() && !shut {
            let shutdown = Guest::header(VIRTIO_VSOCK_OP_SHUTDOWN, 1);
            let flags = VIRTIO_VSOCK_SHUTDOWN_F_SEND;
            guest.send_raw(
                Header {
                    flags,
                    fwd_cnt: received,
                    ..shutdown
                },
                &[],
            );
            (shut, told) = (true, received);
            continue;
        } else if received - told > BUF_ALLOC / 2 {
            let update = Guest::header(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 1);
            guest.send_raw(
                Header {
                    fwd_cnt: received,
                    ..update
                },
                &[],
            );
            told = received;
        }
        let packet = if len == 0 {
            Some(guest.receive())
        } else {
            guest.try_receive(false)
        };
        if let Some((header, payload)) = packet {
            fwd_cnt = header.fwd_cnt;
            got.extend(payload);
            ended |= header.op == VIRTIO_VSOCK_OP_SHUTDOWN;
            assert_ne!(header.op, VIRTIO_VSOCK_OP_RST);
        }
    }
    writer.join().unwrap();
    reader.join().unwrap();
    assert!(got == sent, "bytes to the guest differ");
    println!(
        "16 MiB each way in {:?}; kicks: rx {} tx {}; interrupts {}",
        began.elapsed(),
        guest.rx.kicks,
        guest.tx.kicks,
        guest.line.count()
    );
}

#[test]
fn readable_socket_without_receive_buffers_costs_no_time() {
    let (connector, streams) = pairs();
    let mut guest = Guest::start(connector, true, 1);
    guest.send(VIRTIO_VSOCK_OP_REQUEST, 1);
    let mut host = streams.recv_timeout(DEADLINE).unwrap();
    host.write_all(&bytes(10_000)).unwrap();
    let before = cpu_ticks(guest.thread.unwrap());
    let quiet = Instant::now() + Duration::from_millis(400);
    while Instant::now() < quiet {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let ticks = cpu_ticks(guest.thread.unwrap()) - before;
    assert!(
        ticks <= 5,
        "{ticks} ticks of 10 ms spent on a socket that cannot be served"
    );
    guest.expect(VIRTIO_VSOCK_OP_RESPONSE);
    let mut got = 0;
    while got < 10_000 {
        got += guest.receive().1.len();
    }
}

fn cpu_ticks(thread: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn connections_survive_stop_and_resume() {
    let (mut guest, mut host) = connected();
    guest.send_payload(1, b"before", 0);
    let mut got = [0; 6];
    host.read_exact(&mut got).unwrap();
    let (device, queues) = guest.stop();
    host.write_all(b"meanwhile").unwrap();
    guest.send_payload(1, b"after!", 0);
    guest.resume(device, queues);
    assert_eq!(guest.receive().1, b"meanwhile");
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"after!");
}

#[test]
fn driver_that_begins_anew_finds_no_old_connection() {
    let (mut guest, mut host) = connected();
    let (device, _) = guest.stop();
    let mut fresh = Guest::start(pairs().0, true, 8);
    let (_, queues) = fresh.stop();
    fresh.resume(
        device,
        queues.into_iter().map(|_| fresh.rx.queue()).collect(),
    );
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}

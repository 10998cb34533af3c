//! The vsock device. Input: a byte of options, then guest memory.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use vmm::vsock::Vsock;
use vmm::vsock::spec::{
    VIRTIO_VSOCK_OP_CREDIT_REQUEST, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RST,
    VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_TYPE_STREAM, VMADDR_CID_HOST,
};

use crate::queues::{Guest, Image};

const GUEST_CID: u64 = 3;
const EVENT_IDX: u8 = 1;
const HOST_READS: u8 = 2;
const HOST_WRITES: u8 = 4;
const HOST_CLOSES: u8 = 8;

/// Lets the guest talk to a host that takes every port below 8, four turns.
pub fn run(input: &[u8]) {
    serve(input);
}

fn serve(input: &[u8]) -> Option<(Guest, usize)> {
    let (options, image) = input.split_first()?;
    let (give, accepted) = mpsc::channel();
    let connector = Box::new(move |port: u32| {
        let (ours, guests) = UnixStream::pair().ok().filter(|_| port < 8)?;
        ours.set_nonblocking(true).ok()?;
        give.send(ours).ok()?;
        Some(guests)
    });
    let device = Box::new(Vsock::new(GUEST_CID, connector));
    let mut guest = Guest::new(image, device, options & EVENT_IDX != 0);
    let (mut streams, mut heard) = (Vec::new(), 0);
    for turn in 0..4 {
        guest.turn();
        streams.extend(accepted.try_iter());
        for mut stream in &streams {
            let mut buffer = [0; 4096];
            if options & HOST_READS != 0 {
                heard += stream.read(&mut buffer).unwrap_or(0);
            }
            if options & HOST_WRITES != 0 {
                let _ = stream.write(&buffer[..700]);
            }
        }
        if options & HOST_CLOSES != 0 && turn == 1 {
            streams.clear();
        }
        guest.offer_again();
    }
    Some((guest, heard))
}

fn header(op: u16, port: u32, len: u32, flags: u32) -> Vec<u8> {
    [
        &GUEST_CID.to_le_bytes()[..],
        &VMADDR_CID_HOST.to_le_bytes(),
        &1000u32.to_le_bytes(),
        &port.to_le_bytes(),
        &len.to_le_bytes(),
        &VIRTIO_VSOCK_TYPE_STREAM.to_le_bytes(),
        &op.to_le_bytes(),
        &flags.to_le_bytes(),
        &65_536u32.to_le_bytes(),
        &0u32.to_le_bytes(),
    ]
    .concat()
}

/// Connections that are made, used, half-closed, reset and asked about.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let request = |port| header(VIRTIO_VSOCK_OP_REQUEST, port, 0, 0);
    let payload = |port, bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        header(VIRTIO_VSOCK_OP_RW, port, len, 0)
    };
    let stories: [Vec<(Vec<u8>, &[u8])>; 2] = [
        vec![
            (request(1), b""),
            (payload(1, b"hello"), b"hello"),
            (header(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 1, 0, 0), b""),
            (header(VIRTIO_VSOCK_OP_SHUTDOWN, 1, 0, 2), b""),
        ],
        vec![
            (request(2), b""),
            (request(9), b""),
            (payload(2, b"bytes"), b"bytes"),
            (header(VIRTIO_VSOCK_OP_RST, 2, 0, 0), b""),
            (request(2), b""),
            (header(VIRTIO_VSOCK_OP_SHUTDOWN, 2, 0, 3), b""),
        ],
    ];
    let mut seeds = Vec::new();
    for (story, options) in stories
        .into_iter()
        .zip([EVENT_IDX | HOST_READS, HOST_WRITES | HOST_READS])
    {
        let mut image = Image::new(3);
        for _ in 0..8 {
            image.chain(0, &[], &[44, 200]);
        }
        for (header, payload) in &story {
            match payload {
                [] => image.chain(1, &[header], &[]),
                payload => image.chain(1, &[header, payload], &[]),
            }
        }
        seeds.push(image.with_options(options));
    }
    seeds
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_reach_the_host_and_are_answered() {
        for seed in super::seeds() {
            let (guest, heard) = super::serve(&seed).expect("a whole input");
            assert!(heard >= 5, "the host heard {heard} bytes");
            assert!(guest.used(0) >= 1, "the guest was not answered");
        }
    }
}

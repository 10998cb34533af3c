//! The block device. Input: a byte of options, then guest memory.

use vmm::device::Device;
use vmm::disk::{Disk, Extent, Extents};

use crate::queues::{Guest, Image};

const EVENT_IDX: u8 = 1;
const READ_ONLY: u8 = 2;
/// Where a gap without a file begins, and where it ends, bytes.
const GAP: [u64; 2] = [16 << 10, 32 << 10];
const CAPACITY_BYTES: u64 = 64 << 10;

/// Serves three rounds of requests of a disk of two files.
pub fn run(input: &[u8]) {
    serve(input);
}

fn serve(input: &[u8]) -> Option<Guest> {
    let (options, image) = input.split_first()?;
    let files = [0, GAP[1]].map(|offset| Extent {
        offset,
        bytes: GAP[0],
        file: tempfile::tempfile().expect("a temporary file"),
    });
    let copies = [0, 1].map(|at| files[at].file.try_clone().expect("a descriptor"));
    let extents = Extents::new(files.into(), CAPACITY_BYTES).expect("extents apart");
    let disk: Box<dyn Device> = match options & READ_ONLY {
        0 => Box::new(Disk::writable(extents, "fuzz")),
        _ => Box::new(Disk::read_only(extents, "fuzz")),
    };
    let mut guest = Guest::new(image, disk, options & EVENT_IDX != 0);
    for _ in 0..3 {
        guest.turn();
        guest.offer_again();
    }
    for file in copies {
        let bytes = file.metadata().expect("metadata").len();
        assert!(bytes <= GAP[0], "a file grew to {bytes} bytes");
    }
    Some(guest)
}

/// Reads, writes, flushes, discards, zeroes, and asks for the id.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let header =
        |kind: u32, sector: u64| [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let segment = [&8u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat();
    let mut several = Image::new(1);
    several.chain(0, &[&header(1, 2), &[7; 512]], &[1]);
    several.chain(0, &[&header(0, 2)], &[300, 212, 1]);
    several.chain(0, &[&header(4, 0)], &[1]);
    several.chain(0, &[&header(8, 0)], &[20, 1]);
    let mut zeroing = Image::new(1);
    zeroing.chain(0, &[&header(11, 0), &segment], &[1]);
    zeroing.chain(0, &[&header(13, 0), &segment], &[1]);
    zeroing.chain(0, &[&header(1, 33), &[1; 512]], &[1]);
    vec![several.with_options(EVENT_IDX), zeroing.with_options(0)]
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_have_all_their_requests_answered() {
        let used = super::seeds()
            .iter()
            .map(|seed| super::serve(seed).expect("a whole input").used(0))
            .collect::<Vec<_>>();
        // What is offered again beyond the seeds' own chains is a chain of its first descriptor, or an end of the queue.
        assert!(used[0] >= 4 && used[1] >= 3, "{used:?}");
    }
}

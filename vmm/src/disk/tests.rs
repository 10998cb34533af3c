//! The disk driven by a mock driver, well-behaved and hostile.

use std::io::{Read, Seek};

use proptest::prelude::*;
use virtio_queue::desc::{RawDescriptor, split};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::device::ActiveQueue;
use crate::requests::mock::Counted;
use crate::requests::{Told, drain};

mod chains;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Where the requests' buffers lie; the queue is below.
const BUFFERS: u64 = 0x1_0000;
const MEMORY_BYTES: usize = 0x10_0000;
const DISK_BYTES: u64 = 0x1_0000;
/// Not any status.
const UNTOUCHED: u8 = 0xee;

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap()
}

fn backing(fill: u8) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![fill; usize::try_from(DISK_BYTES).unwrap()])
        .unwrap();
    file
}

fn disk(read_only: bool, file: std::fs::File) -> Disk {
    let extent = Extent {
        offset: 0,
        bytes: DISK_BYTES,
        file,
    };
    Disk::new(
        Extents::new(vec![extent], DISK_BYTES).unwrap(),
        read_only,
        "tester",
    )
}

fn descriptor(address: u64, bytes: u32, flags: u16, next: u16) -> RawDescriptor {
    RawDescriptor::from(split::Descriptor::new(address, bytes, flags, next))
}

/// What came of one request.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u8,
    used_bytes: u32,
}

/// One request of `kind` with `data` to or from the device.
struct Driver<'a> {
    memory: &'a GuestMemory,
    disk: Disk,
}

impl Driver<'_> {
    fn request(&mut self, kind: u32, sector: u64, data: &[u8], device_writes: bool) -> Answer {
        let data_bytes = u32::try_from(data.len()).unwrap();
        let (header, buffer) = (BUFFERS, BUFFERS + 0x100);
        let status = buffer + u64::from(data_bytes);
        self.memory.write_obj(kind, GuestAddress(header)).unwrap();
        self.memory
            .write_obj(sector, GuestAddress(header + 8))
            .unwrap();
        self.memory.write_slice(data, GuestAddress(buffer)).unwrap();
        let direction = if device_writes { WRITE } else { 0 };
        let mut chain = vec![descriptor(header, 16, NEXT, 1)];
        if data_bytes > 0 {
            chain.push(descriptor(buffer, data_bytes, NEXT | direction, 2));
        }
        chain.push(descriptor(status, 1, WRITE, 0));
        self.chain(&chain, status).expect("queue is whole")
    }

    /// Any chain; none when the device calls the queue broken.
    fn chain(&mut self, chain: &[RawDescriptor], status: u64) -> Option<Answer> {
        let _ = self.memory.write_obj(UNTOUCHED, GuestAddress(status));
        let mock = MockSplitQueue::new(self.memory, 16);
        let mut queue: Queue = mock.create_queue().unwrap();
        for (index, descriptor) in (0..).zip(chain) {
            mock.desc_table().store(index, *descriptor).unwrap();
        }
        mock.avail().ring().ref_at(0).unwrap().store(0);
        mock.avail().idx().store(1);
        let interrupt = Counted::default();
        drain(
            self.memory,
            &mut queue,
            &interrupt,
            Told::Together,
            |memory, chain| self.disk.answer(memory, chain),
        )?;
        assert_eq!(mock.used().idx().load(), 1);
        assert_eq!(interrupt.used.load(Ordering::SeqCst), 1);
        let used = mock.used().ring().ref_at(0).unwrap().load();
        Some(Answer {
            status: self
                .memory
                .read_obj(GuestAddress(status))
                .unwrap_or(UNTOUCHED),
            used_bytes: used.len(),
        })
    }

    fn data(&self, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.memory
            .read_slice(&mut data, GuestAddress(BUFFERS + 0x100))
            .unwrap();
        data
    }
}

fn answer(status: u8, used_bytes: u32) -> Answer {
    Answer { status, used_bytes }
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

#[test]
fn disk_written_sectors_read_back() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, backing(7)),
    };
    assert_eq!(
        driver.request(VIRTIO_BLK_T_OUT, 3, &[9; 1024], false),
        answer(VIRTIO_BLK_S_OK, 1)
    );
    assert_eq!(
        driver.request(VIRTIO_BLK_T_IN, 2, &[0; 2048], true),
        answer(VIRTIO_BLK_S_OK, 2049)
    );
    let data = driver.data(2048);
    assert_eq!((data[511], data[512], data[1535], data[1536]), (7, 9, 9, 7));
    assert_eq!(
        driver.request(VIRTIO_BLK_T_FLUSH, 0, &[], false),
        answer(VIRTIO_BLK_S_OK, 1)
    );
}

#[test]
fn disk_read_only_refuses_every_write() {
    let memory = memory();
    let mut file = backing(7);
    let mut driver = Driver {
        memory: &memory,
        disk: disk(true, file.try_clone().unwrap()),
    };
    assert_eq!(
        driver.request(VIRTIO_BLK_T_OUT, 0, &[9; 512], false),
        answer(VIRTIO_BLK_S_IOERR, 1)
    );
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        let answered = driver.request(kind, 0, &segment(0, 8, 0), false);
        assert_eq!(answered, answer(VIRTIO_BLK_S_UNSUPP, 1));
    }
    let mut contents = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut contents).unwrap();
    assert!(contents.iter().all(|byte| *byte == 7));
    assert_ne!(driver.disk.features() & (1 << VIRTIO_BLK_F_RO), 0);
}

#[test]
fn disk_discard_and_write_zeroes_make_zeros() {
    let memory = memory();
    for (kind, flags) in [
        (VIRTIO_BLK_T_DISCARD, 0),
        (VIRTIO_BLK_T_WRITE_ZEROES, 0),
        (VIRTIO_BLK_T_WRITE_ZEROES, 1),
    ] {
        let mut driver = Driver {
            memory: &memory,
            disk: disk(false, backing(7)),
        };
        let ranges = [segment(8, 8, flags), segment(24, 8, flags)].concat();
        assert_eq!(
            driver.request(kind, 0, &ranges, false),
            answer(VIRTIO_BLK_S_OK, 1)
        );
        driver.request(VIRTIO_BLK_T_IN, 0, &[1; 32 * 512], true);
        let data = driver.data(32 * 512);
        let sums: Vec<u8> = data.chunks(4096).map(|page| page[0]).collect();
        assert_eq!(sums, [7, 0, 7, 0]);
    }
}

#[test]
fn disk_discard_with_bad_segments_is_refused() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, backing(7)),
    };
    let mut discard = |data: &[u8]| driver.request(VIRTIO_BLK_T_DISCARD, 0, data, false).status;
    assert_eq!(discard(&segment(0, 8, 1)), VIRTIO_BLK_S_UNSUPP);
    assert_eq!(
        discard(&segment(0, MAX_DISCARD_SECTORS + 1, 0)),
        VIRTIO_BLK_S_IOERR
    );
    assert_eq!(
        discard(&segment(DISK_BYTES / 512, 8, 0)),
        VIRTIO_BLK_S_IOERR
    );
    assert_eq!(discard(&segment(u64::MAX, 8, 0)), VIRTIO_BLK_S_IOERR);
    assert_eq!(discard(&segment(0, 8, 0)[..15]), VIRTIO_BLK_S_IOERR);
    assert_eq!(discard(&segment(0, 8, 0).repeat(33)), VIRTIO_BLK_S_IOERR);
    assert_eq!(discard(&[]), VIRTIO_BLK_S_IOERR);
}

#[test]
fn disk_out_of_range_odd_or_unknown_requests_are_refused() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, backing(7)),
    };
    let sectors = DISK_BYTES / 512;
    for sector in [sectors, sectors - 1, u64::MAX, u64::MAX / 512] {
        for (kind, device_writes) in [(VIRTIO_BLK_T_IN, true), (VIRTIO_BLK_T_OUT, false)] {
            let answered = driver.request(kind, sector, &[0; 1024], device_writes);
            assert_eq!(answered, answer(VIRTIO_BLK_S_IOERR, 1));
        }
    }
    assert_eq!(
        driver.request(VIRTIO_BLK_T_IN, 0, &[0; 100], true).status,
        VIRTIO_BLK_S_IOERR
    );
    assert_eq!(
        driver.request(99, 0, &[], false).status,
        VIRTIO_BLK_S_UNSUPP
    );
}

#[test]
fn disk_id_is_its_name_padded() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(true, backing(0)),
    };
    assert_eq!(
        driver.request(VIRTIO_BLK_T_GET_ID, 0, &[1; 20], true),
        answer(VIRTIO_BLK_S_OK, 21)
    );
    assert_eq!(driver.data(20), *b"tester\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn disk_chain_that_loops_or_has_no_status_byte_breaks_the_queue() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, backing(7)),
    };
    let looped = [
        descriptor(BUFFERS, 16, NEXT, 1),
        descriptor(BUFFERS, 1, NEXT | WRITE, 0),
    ];
    assert_eq!(driver.chain(&looped, 0xf000), None);
    let read_only = [descriptor(BUFFERS, 16, 0, 0)];
    assert_eq!(driver.chain(&read_only, 0xf000), None);
    let empty_status = [
        descriptor(BUFFERS, 16, NEXT, 1),
        descriptor(BUFFERS, 0, WRITE, 0),
    ];
    assert_eq!(driver.chain(&empty_status, 0xf000), None);
    let outside = [
        descriptor(BUFFERS, 16, NEXT, 1),
        descriptor(u64::MAX, 1, WRITE, 0),
    ];
    assert_eq!(driver.chain(&outside, 0xf000), None);
}

#[test]
fn disk_data_outside_memory_is_an_io_error() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, backing(7)),
    };
    memory
        .write_obj(VIRTIO_BLK_T_IN, GuestAddress(BUFFERS))
        .unwrap();
    for (address, bytes) in [
        (MEMORY_BYTES as u64 - 256, 512),
        (u64::MAX - 10, 512),
        (BUFFERS, u32::MAX - 511 - 17),
    ] {
        let chain = [
            descriptor(BUFFERS, 16, NEXT, 1),
            descriptor(address, bytes, NEXT | WRITE, 2),
            descriptor(0xf000, 1, WRITE, 0),
        ];
        assert_eq!(
            driver.chain(&chain, 0xf000),
            Some(answer(VIRTIO_BLK_S_IOERR, 1))
        );
    }
}

#[test]
fn disk_full_host_is_noted_and_seen_as_io_error() {
    // /dev/full refuses every write with ENOSPC.
    let full = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, full),
    };
    let noted = driver.disk.host_full();
    assert!(!noted.load(Ordering::SeqCst));
    assert_eq!(
        driver.request(VIRTIO_BLK_T_OUT, 0, &[1; 512], false).status,
        VIRTIO_BLK_S_IOERR
    );
    assert!(noted.load(Ordering::SeqCst));
}

#[test]
fn disk_config_has_capacity_and_limits_where_the_driver_looks() {
    let config = disk(false, backing(0)).config();
    assert_eq!(config.len(), 60);
    assert_eq!(config[..8], (DISK_BYTES / 512).to_le_bytes());
    assert_eq!(config[12..16], SEG_MAX.to_le_bytes());
    assert_eq!(config[36..40], MAX_DISCARD_SECTORS.to_le_bytes());
    assert_eq!(config[48..52], MAX_DISCARD_SECTORS.to_le_bytes());
    assert_eq!(config[56], 1);
}

/// A device's start with the queue of `mock`.
fn activation(memory: &GuestMemory, mock: &MockSplitQueue<'_, GuestMemory>) -> Activation {
    Activation {
        memory: memory.clone(),
        features: 0,
        queues: vec![ActiveQueue {
            queue: mock.create_queue().unwrap(),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
        }],
        interrupt: Arc::new(Counted::default()),
    }
}

#[test]
fn disk_running_gives_itself_back_when_stopped() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    stop.write(1).unwrap();
    let device: Box<dyn Device> = Box::new(disk(true, backing(0)));
    let (device, queues) = device.run(activation(&memory, &mock), &Stop::new(stop));
    assert_eq!((device.id(), queues.len()), (VIRTIO_ID_BLOCK, 1));
}

#[test]
fn disk_stopped_before_it_begins_serves_what_is_there() {
    let memory = memory();
    let mock = MockSplitQueue::new(&memory, 16);
    memory
        .write_obj(VIRTIO_BLK_T_FLUSH, GuestAddress(BUFFERS))
        .unwrap();
    memory
        .write_obj(UNTOUCHED, GuestAddress(BUFFERS + 16))
        .unwrap();
    let chain = [
        descriptor(BUFFERS, 16, NEXT, 1),
        descriptor(BUFFERS + 16, 1, WRITE, 0),
    ];
    for (index, descriptor) in (0..).zip(chain) {
        mock.desc_table().store(index, descriptor).unwrap();
    }
    mock.avail().ring().ref_at(0).unwrap().store(0);
    mock.avail().idx().store(1);
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    stop.write(1).unwrap();
    Box::new(disk(false, backing(0))).run(activation(&memory, &mock), &Stop::new(stop));
    let status: u8 = memory.read_obj(GuestAddress(BUFFERS + 16)).unwrap();
    assert_eq!((mock.used().idx().load(), status), (1, VIRTIO_BLK_S_OK));
}

/// Addresses and lengths on the edges of what there is.
fn hostile_descriptor() -> impl Strategy<Value = RawDescriptor> {
    let address = prop_oneof![
        Just(BUFFERS),
        Just(MEMORY_BYTES as u64 - 1),
        Just(MEMORY_BYTES as u64),
        Just(u64::MAX),
        0..MEMORY_BYTES as u64,
        any::<u64>(),
    ];
    let bytes = prop_oneof![
        Just(0u32),
        Just(1),
        Just(16),
        Just(512),
        Just(u32::MAX),
        0u32..0x2000
    ];
    (address, bytes, 0u16..8, 0u16..18)
        .prop_map(|(address, bytes, flags, next)| descriptor(address, bytes, flags, next))
}

proptest! {
    #[test]
    fn disk_hostile_chain_never_panics_nor_grows_the_disk(
        chain in prop::collection::vec(hostile_descriptor(), 1..16),
        headers in prop::collection::vec((0u32..16, 0u64..200), 1..16),
        heads in prop::collection::vec(any::<u16>(), 1..16),
        available in 0u16..20,
    ) {
        let memory = memory();
        let file = backing(7);
        let mut disk = disk(false, file.try_clone().unwrap());
        for (at, (kind, sector)) in (BUFFERS..).step_by(16).zip(&headers) {
            memory.write_obj(*kind, GuestAddress(at)).unwrap();
            memory.write_obj(*sector, GuestAddress(at + 8)).unwrap();
        }
        let mock = MockSplitQueue::new(&memory, 16);
        let mut queue: Queue = mock.create_queue().unwrap();
        for (index, descriptor) in (0..).zip(&chain) {
            mock.desc_table().store(index, *descriptor).unwrap();
        }
        for (index, head) in heads.iter().enumerate() {
            mock.avail().ring().ref_at(index).unwrap().store(head % 17);
        }
        mock.avail().idx().store(available);
        let _ = drain(&memory, &mut queue, &Counted::default(), Told::Together, |memory, chain| disk.answer(memory, chain));
        prop_assert!(file.metadata().unwrap().len() <= DISK_BYTES);
    }
}

#[test]
fn disk_indirect_table_of_tables_breaks_the_queue() {
    let memory = memory();
    let mut driver = Driver {
        memory: &memory,
        disk: disk(false, backing(7)),
    };
    memory
        .write_obj(descriptor(BUFFERS, 16, INDIRECT, 0), GuestAddress(BUFFERS))
        .unwrap();
    assert_eq!(
        driver.chain(&[descriptor(BUFFERS, 16, INDIRECT, 0)], 0xf000),
        None
    );
}

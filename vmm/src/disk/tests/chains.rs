//! Requests of a driver that knows the rules, cut into descriptors in every way, and then with a few faults in these:
//! loops, indexes and addresses out of range, lengths of zero and of gigabytes, buffers over one another.

use proptest::sample::Index;

use virtio_queue::QueueT as _;

use super::*;

const QUEUE_SIZE: u16 = 64;
/// Small, so that it can be compared as a whole.
const MEMORY: usize = 0x2_0000;
/// An indirect table of as many descriptors as the queue has.
const TABLE: u64 = 0x8000;
const BUFFERS: u64 = 0x1_0000;

/// A request and how it lies in memory.
#[derive(Clone, Debug)]
struct Asked {
    kind: u32,
    sector: u64,
    data_bytes: u32,
    /// Most bytes of a descriptor, of those that the device reads and of those that it writes.
    pieces: [u32; 2],
    indirect: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let kind = prop_oneof![
        4 => Just(VIRTIO_BLK_T_IN),
        4 => Just(VIRTIO_BLK_T_OUT),
        1 => Just(VIRTIO_BLK_T_FLUSH),
        1 => Just(VIRTIO_BLK_T_GET_ID),
        1 => 5u32..16,
    ];
    let sector = prop_oneof![8 => 0..DISK_BYTES / 512, 1 => 120..140u64, 1 => any::<u64>()];
    let bytes = prop_oneof![8 => (0u32..16).prop_map(|sectors| sectors * 512), 1 => 0u32..5000];
    let piece = || prop_oneof![Just(20_000u32), Just(512), 500u32..3000, Just(4096)];
    (kind, sector, bytes, [piece(), piece()], any::<bool>()).prop_map(
        |(kind, sector, data_bytes, pieces, indirect)| Asked {
            kind,
            sector,
            data_bytes,
            pieces,
            indirect,
        },
    )
}

/// One fault of one descriptor.
#[derive(Clone, Debug)]
enum Defect {
    Address(u64),
    Length(u32),
    Flags(u16),
    Next(u16),
    /// The descriptor lies over another one's buffer.
    Over(Index),
}

fn defects() -> impl Strategy<Value = Vec<(Index, Defect)>> {
    let end = MEMORY as u64;
    let address = prop_oneof![
        Just(0),
        Just(TABLE),
        Just(end - 1),
        Just(end),
        Just(u64::MAX),
        0..end,
        any::<u64>()
    ];
    let length = prop_oneof![
        Just(0u32),
        Just(1),
        Just(u32::MAX),
        Just(1 << 31),
        0..70_000u32,
        any::<u32>()
    ];
    let defect = prop_oneof![
        3 => address.prop_map(Defect::Address),
        3 => length.prop_map(Defect::Length),
        2 => (0u16..8).prop_map(Defect::Flags),
        3 => prop_oneof![0..QUEUE_SIZE + 2, any::<u16>()].prop_map(Defect::Next),
        2 => any::<Index>().prop_map(Defect::Over),
    ];
    prop::collection::vec((any::<Index>(), defect), 0..4)
}

/// Address, length, flags and successor of a descriptor.
type Fields = (u64, u32, u16, u16);

impl Asked {
    fn device_writes(&self) -> bool {
        matches!(self.kind, VIRTIO_BLK_T_IN | VIRTIO_BLK_T_GET_ID)
    }

    /// Bytes that the device reads, then bytes that it writes.
    fn sides(&self) -> [u32; 2] {
        match self.device_writes() {
            true => [16, self.data_bytes + 1],
            false => [16 + self.data_bytes, 1],
        }
    }

    fn status(&self) -> u64 {
        BUFFERS + 16 + u64::from(self.data_bytes)
    }

    fn chain(&self) -> Vec<Fields> {
        let (mut chain, mut at) = (Vec::new(), BUFFERS);
        for (side, flags) in [(0, 0), (1, WRITE)] {
            let mut left = self.sides()[side];
            while left > 0 {
                let bytes = left.min(self.pieces[side]);
                let next = u16::try_from(chain.len() + 1).unwrap();
                chain.push((at, bytes, flags | NEXT, next));
                (at, left) = (at + u64::from(bytes), left - bytes);
            }
        }
        if let Some(last) = chain.last_mut() {
            (last.2, last.3) = (WRITE, 0);
        }
        chain
    }

    /// What the specification wants answered: the status.
    fn answer(&self) -> u8 {
        let end = self
            .sector
            .checked_mul(512)
            .and_then(|offset| offset.checked_add(u64::from(self.data_bytes)));
        let good = self.data_bytes.is_multiple_of(512) && end.is_some_and(|end| end <= DISK_BYTES);
        match self.kind {
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT if good => VIRTIO_BLK_S_OK,
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT => VIRTIO_BLK_S_IOERR,
            VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_GET_ID => VIRTIO_BLK_S_OK,
            // No segment list is all zeros but this one, which is short or names nothing.
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => UNTOUCHED,
            _ => VIRTIO_BLK_S_UNSUPP,
        }
    }
}

fn spoil(chain: &mut [Fields], defects: &[(Index, Defect)]) {
    for (which, defect) in defects {
        let other = |index: &Index| chain[index.index(chain.len())].0;
        let at = which.index(chain.len());
        match defect {
            Defect::Address(address) => chain[at].0 = *address,
            Defect::Length(bytes) => chain[at].1 = *bytes,
            Defect::Flags(flags) => chain[at].2 = *flags,
            Defect::Next(next) => chain[at].3 = *next,
            Defect::Over(index) => chain[at].0 = other(index),
        }
    }
}

fn contents(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

proptest! {
    #[test]
    fn disk_chain_with_faults_is_answered_rightly_or_refused_and_writes_where_it_may(
        asked in asked(), defects in defects()
    ) {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let mock = MockSplitQueue::new(&memory, QUEUE_SIZE);
        let mut chain = asked.chain();
        spoil(&mut chain, &defects);
        for (index, (address, bytes, flags, next)) in (0u16..).zip(&chain) {
            let raw = descriptor(*address, *bytes, *flags, *next);
            if asked.indirect {
                memory.write_obj(raw, GuestAddress(TABLE + u64::from(index) * 16)).unwrap();
            } else {
                mock.desc_table().store(index, raw).unwrap();
            }
        }
        if asked.indirect {
            let bytes = u32::try_from(chain.len() * 16).unwrap();
            mock.desc_table().store(0, descriptor(TABLE, bytes, INDIRECT, 0)).unwrap();
        }
        let data_bytes = usize::try_from(asked.data_bytes).unwrap();
        if asked.kind == VIRTIO_BLK_T_OUT {
            memory.write_slice(&vec![9; data_bytes], GuestAddress(BUFFERS + 16)).unwrap();
        }
        memory.write_obj(asked.kind, GuestAddress(BUFFERS)).unwrap();
        memory.write_obj(asked.sector, GuestAddress(BUFFERS + 8)).unwrap();
        memory.write_obj(UNTOUCHED, GuestAddress(asked.status())).unwrap();
        mock.avail().ring().ref_at(0).unwrap().store(0);
        mock.avail().idx().store(1);
        let before = contents(&memory);

        let mut file = backing(7);
        let mut queue: Queue = mock.create_queue().unwrap();
        let mut disk = disk(false, file.try_clone().unwrap());
        let served = drain(&memory, &mut queue, &Counted::default(), Told::Together, |memory, chain| disk.answer(memory, chain));

        let mut after = contents(&memory);
        if defects.is_empty() {
            let status = after[usize::try_from(asked.status()).unwrap()];
            prop_assert_eq!((served, mock.used().idx().load()), (Some(false), 1));
            let expected = asked.answer();
            prop_assert!(status == expected || expected == UNTOUCHED, "{} instead of {}", status, expected);
            if status == VIRTIO_BLK_S_OK && asked.kind == VIRTIO_BLK_T_IN {
                prop_assert!(after[0x1_0010..][..data_bytes].iter().all(|byte| *byte == 7));
            }
            let mut on_disk = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut on_disk).unwrap();
            let changed = on_disk.iter().filter(|byte| **byte != 7).count();
            let written = status == VIRTIO_BLK_S_OK && asked.kind == VIRTIO_BLK_T_OUT;
            let right = if written { data_bytes } else { 0 };
            prop_assert!(changed == right || expected == UNTOUCHED);
        }
        prop_assert_eq!(file.metadata().unwrap().len(), DISK_BYTES);

        // All that has changed lies in the used ring or where the driver let the device write.
        let used = usize::try_from(queue.used_ring()).unwrap();
        let mut allowed: Vec<_> =
            std::iter::once(used..used + 6 + 8 * usize::from(QUEUE_SIZE)).collect();
        for (address, bytes, flags, _) in &chain {
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

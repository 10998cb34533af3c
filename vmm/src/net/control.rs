//! The control queue of a card with several pairs of queues: how many of them the driver uses.
//!
//! Virtio 1.2, section 5.1.6.5.6 (automatic receive steering).

use std::io;

use virtio_queue::Queue;

use super::spec::*;
use super::{Limit, Meter};
use crate::device::{Activation, Device, Stop};
use crate::faults::Faults;
use crate::requests::{self, Told};

/// Has a pair of queues, by its number, get frames or get none any more.
type Attach = Box<dyn Fn(usize, bool) -> io::Result<()> + Send>;

/// How often in a second a pair may be made to get frames: to change that holds a lock that all of the host's networks share.
const CHANGES: u64 = 100;

/// The last part of such a card.
pub struct Control {
    pairs: usize,
    /// So many of them get frames.
    used: usize,
    attach: Attach,
    changes: Meter,
    faults: Faults,
}

impl Control {
    /// That of a card with so many pairs of queues, all of which get frames; then the first alone does, as drivers expect it.
    pub fn new(pairs: usize, attach: Attach) -> Self {
        let changes = Limit {
            bytes: None,
            frames: Some(CHANGES),
        };
        let mut control = Self {
            pairs,
            used: pairs,
            attach,
            changes: Meter::new(changes),
            faults: Faults::default(),
        };
        control.spread(1);
        control
    }

    /// Carries out a command; the answer.
    fn execute(&mut self, command: Option<[u8; COMMAND_BYTES]>) -> Vec<u8> {
        let pairs = match command {
            Some(
                [
                    VIRTIO_NET_CTRL_MQ,
                    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
                    low,
                    high,
                ],
            ) => usize::from(u16::from_le_bytes([low, high])),
            _ => 0,
        };
        match (1..=self.pairs).contains(&pairs) && self.spread(pairs) {
            true => vec![VIRTIO_NET_OK],
            false => vec![VIRTIO_NET_ERR],
        }
    }

    /// Spreads what the guest is sent over so many pairs, the first ones. Whether that is done.
    fn spread(&mut self, pairs: usize) -> bool {
        if pairs > self.used && self.changes.wait().is_some() {
            return false;
        }
        let detached = (pairs..self.used).rev().map(|pair| (pair, false));
        let attached = (self.used..pairs).map(|pair| (pair, true));
        let mut changes = detached.chain(attached);
        let done = changes.try_for_each(|(pair, gets)| {
            (self.attach)(pair, gets)?;
            self.used = pair + usize::from(gets);
            if gets {
                self.changes.passed(0);
            }
            io::Result::Ok(())
        });
        if let Err(error) = &done {
            self.faults.log(format_args!(
                "use {pairs} queues of a network card: {error}"
            ));
        }
        done.is_ok()
    }
}

impl Device for Control {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[CONTROL_QUEUE_SIZE]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn run(
        mut self: Box<Self>,
        activation: Activation,
        stop: &Stop,
    ) -> (Box<dyn Device>, Vec<Queue>) {
        let name = "network card";
        let queues = requests::serve(name, Told::Each, activation, stop, |memory, chain| {
            let answered = requests::exchange(memory, chain, |command| self.execute(command));
            Some(answered)
        });
        // What the next driver uses that says nothing.
        self.spread(1);
        (self, queues)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use virtio_queue::desc::{RawDescriptor, split};
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::device::ActiveQueue;
    use crate::memory::GuestMemory;
    use crate::requests::mock::{Counted, exchange};

    type Done = Arc<Mutex<Vec<(usize, bool)>>>;

    /// A control queue of four pairs, and what it has done with each; `fails` says of which it cannot.
    fn control(fails: Option<usize>) -> (Control, Done) {
        let done = Done::default();
        let there = Arc::clone(&done);
        let attach = move |pair, gets| {
            if fails == Some(pair) {
                return Err(io::Error::other("it cannot"));
            }
            there.lock().unwrap().push((pair, gets));
            Ok(())
        };
        (Control::new(4, Box::new(attach)), done)
    }

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap()
    }

    fn command(control: &mut Control, request: &[u8], room: u32) -> (usize, Vec<u8>) {
        let memory = memory();
        exchange(&memory, [0x2000, 0x3000], request, room, |memory, chain| {
            Some(requests::exchange(memory, chain, |command| {
                control.execute(command)
            }))
        })
    }

    #[test]
    fn driver_uses_as_many_pairs_as_it_says_and_no_more_than_there_are() {
        let (mut control, done) = control(None);
        assert_eq!(
            done.lock().unwrap().split_off(0),
            [(3, false), (2, false), (1, false)]
        );
        let steps: [(u16, _, &[_]); 7] = [
            (1, VIRTIO_NET_OK, &[]),
            (3, VIRTIO_NET_OK, &[(1, true), (2, true)]),
            (3, VIRTIO_NET_OK, &[]),
            (0, VIRTIO_NET_ERR, &[]),
            (5, VIRTIO_NET_ERR, &[]),
            (4, VIRTIO_NET_OK, &[(3, true)]),
            (1, VIRTIO_NET_OK, &[(3, false), (2, false), (1, false)]),
        ];
        for (pairs, answer, changes) in steps {
            let request = [&[4, 0][..], &pairs.to_le_bytes()].concat();
            assert_eq!(command(&mut control, &request, 1), (1, vec![answer]));
            assert_eq!(done.lock().unwrap().split_off(0), changes, "{pairs} pairs");
        }
    }

    #[test]
    fn other_commands_and_short_ones_are_refused() {
        let (mut control, done) = control(None);
        done.lock().unwrap().clear();
        for request in [&[4, 1, 1, 0][..], &[0, 0, 1, 0], &[4, 0, 1], &[]] {
            let refused = (1, vec![VIRTIO_NET_ERR]);
            assert_eq!(command(&mut control, request, 1), refused, "{request:?}");
        }
        assert!(done.lock().unwrap().is_empty());
        // Nobody is told of this one.
        assert_eq!(command(&mut control, &[4, 0, 2, 0], 0), (0, vec![]));
    }

    #[test]
    fn pair_that_the_host_does_not_take_away_is_asked_for_again() {
        let (mut control, done) = control(Some(2));
        for _ in 0..2 {
            let refused = (1, vec![VIRTIO_NET_ERR]);
            assert_eq!(command(&mut control, &[4, 0, 1, 0], 1), refused);
        }
        assert_eq!(*done.lock().unwrap(), [(3, false)]);
        let done = (1, vec![VIRTIO_NET_OK]);
        assert_eq!(command(&mut control, &[4, 0, 4, 0], 1), done);
    }

    #[test]
    fn driver_that_changes_its_mind_without_an_end_is_refused() {
        let (mut control, done) = control(None);
        let answers = (0..1000).map(|round| {
            let pairs = if round % 2 == 0 { 4 } else { 1 };
            command(&mut control, &[4, 0, pairs, 0], 1).1
        });
        let refused = answers.filter(|answer| *answer == [VIRTIO_NET_ERR]).count();
        assert!(refused > 300, "{refused}");
        let done = done.lock().unwrap();
        let attached = done.iter().filter(|(_, gets)| *gets).count();
        assert!((3..400).contains(&attached), "{attached}");
    }

    #[test]
    fn next_driver_begins_with_one_pair() {
        let (control, done) = control(None);
        let (memory, interrupt) = (memory(), Arc::new(Counted::default()));
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let stop = event();
        stop.write(1).unwrap();
        let run = |control: Box<dyn Device>, pairs: u8| {
            let ring = MockSplitQueue::create(&memory, GuestAddress(0), CONTROL_QUEUE_SIZE);
            let parts = [(0x2000, 4, false), (0x3000, 1, true)];
            let chain = parts.map(|(at, bytes, is_answer)| {
                let flags = if is_answer { 2 } else { 0 };
                RawDescriptor::from(split::Descriptor::new(at, bytes, flags, 0))
            });
            memory
                .write_slice(&[4, 0, pairs, 0], GuestAddress(0x2000))
                .unwrap();
            ring.build_desc_chain(&chain).unwrap();
            let activation = Activation {
                memory: memory.clone(),
                features: 0,
                queues: vec![ActiveQueue {
                    queue: ring.create_queue().unwrap(),
                    kick: event(),
                }],
                interrupt: interrupt.clone(),
            };
            control
                .run(activation, &Stop::new(stop.try_clone().unwrap()))
                .0
        };
        let control = run(Box::new(control), 2);
        run(control, 3);
        let expected = [
            (3, false),
            (2, false),
            (1, false),
            (1, true),
            (1, false),
            (1, true),
            (2, true),
            (2, false),
            (1, false),
        ];
        assert_eq!(*done.lock().unwrap(), expected);
    }
}

//! How a device answers requests: chains of queues, one after the other, each with one answer, until it is told to stop.
//! Disks, shared folders, memory and control queues do; vsock, whose two directions wait for each other, and what moves frames
//! take chains themselves.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use virtio_queue::{DescriptorChain, Error as QueueError, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::device::{Activation, ActiveQueue, Interrupt, Stop};
use crate::event;
use crate::memory::{GuestMemory, Reader, Writer};

/// Requests of one queue between two looks at the stop.
const BATCH: u16 = 16;

/// When the driver is told of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Of each at once: who asked for little is not to wait for who asked for much.
    Each,
    /// Of a batch at its end, for devices whose answers all take about as long.
    Together,
}

/// Serves the device called `name` until told to stop, or until a queue is broken, upon which only a reset helps; gives the
/// queues back. `answer` carries one request out and gives how many bytes it wrote to the driver; none when the queue is broken.
pub fn serve(
    name: &str,
    told: Told,
    mut activation: Activation,
    stop: &Stop,
    answer: impl FnMut(&GuestMemory, DescriptorChain<&GuestMemory>) -> Option<u32>,
) -> Vec<Queue> {
    if let Err(why) = serve_queues(told, &mut activation, stop, answer) {
        activation.interrupt.needs_reset(&format!("{name}: {why}"));
    }
    activation.into_queues()
}

/// Until told to stop; an error is why only a reset helps.
fn serve_queues(
    told: Told,
    activation: &mut Activation,
    stop: &Stop,
    mut answer: impl FnMut(&GuestMemory, DescriptorChain<&GuestMemory>) -> Option<u32>,
) -> Result<(), &'static str> {
    let Activation {
        memory,
        features: _,
        queues,
        interrupt,
    } = activation;
    let Ok(wait) = Wait::new(queues.iter().map(|active| &active.kick), stop) else {
        return Err("no descriptor left to wait for requests");
    };
    loop {
        // Requests may be there before the first kick; they are served before a stop, too, however early it comes.
        let mut more = false;
        for ActiveQueue { queue, kick } in &mut *queues {
            // Nothing to read when there was more without a kick.
            let _ = kick.read();
            if !queue.ready() {
                continue;
            }
            let Some(left) = drain(memory, queue, &**interrupt, told, &mut answer) else {
                return Err("the guest broke a queue");
            };
            more |= left;
        }
        if wait.stopped(more) {
            return Ok(());
        }
    }
}

/// Answers what is in the queue, at most [`BATCH`] of it. Whether there is more; none when the queue is broken.
pub fn drain(
    memory: &GuestMemory,
    queue: &mut Queue,
    interrupt: &dyn Interrupt,
    told: Told,
    mut answer: impl FnMut(&GuestMemory, DescriptorChain<&GuestMemory>) -> Option<u32>,
) -> Option<bool> {
    let tell = |queue: &mut Queue| {
        if queue.needs_notification(memory).ok()? {
            interrupt.used_buffer();
        }
        Some(())
    };
    queue.disable_notification(memory).ok()?;
    for _ in 0..BATCH {
        let Some(chain) = pop(queue, memory).ok()? else {
            break;
        };
        let head = chain.head_index();
        let written = answer(memory, chain)?;
        queue.add_used(memory, head, written).ok()?;
        if told == Told::Each {
            tell(queue)?;
        }
    }
    if told == Told::Together {
        tell(queue)?;
    }
    queue.enable_notification(memory).ok()
}

/// Answers a request: `answer` gets its first N bytes, or `None` where it has fewer. How many bytes were written to the driver, none of them
/// where there is no room for all.
pub fn exchange<const N: usize>(
    memory: &GuestMemory,
    chain: DescriptorChain<&GuestMemory>,
    answer: impl FnOnce(Option<[u8; N]>) -> Vec<u8>,
) -> u32 {
    let mut request = [0; N];
    let from: Result<Reader<'_>, _> = chain.clone().reader(memory);
    let is_read = from.is_ok_and(|mut from| from.read_exact(&mut request).is_ok());
    let answer = answer(is_read.then_some(request));
    let to: Result<Writer<'_>, _> = chain.writer(memory);
    let to = to.ok().filter(|to| to.available_bytes() >= answer.len());
    let written = to.and_then(|mut to| to.write_all(&answer).ok());
    written.map_or(0, |()| u32::try_from(answer.len()).unwrap_or(0))
}

/// The next chain that is in a queue, if there is one.
///
/// # Errors
/// As [`next_chain`].
fn pop<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemory,
) -> Result<Option<DescriptorChain<&'m GuestMemory>>, QueueError> {
    let chain = queue.iter(memory)?.next();
    // Section 2.7.5.3.1: no longer than the queue. A table of descriptors could have 65,535, each of which would cost us memory.
    let is_too_long = |chain: &DescriptorChain<_>| chain.clone().nth(queue.size().into()).is_some();
    match chain {
        Some(chain) if is_too_long(&chain) => Err(QueueError::InvalidChain),
        chain => Ok(chain),
    }
}

/// The next chain of a queue; `None` when there is none and the guest will kick for the next.
///
/// # Errors
/// Rings that make no sense, or do not lie in memory, and chains that are longer than the queue.
pub fn next_chain<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemory,
) -> Result<Option<DescriptorChain<&'m GuestMemory>>, QueueError> {
    if let Some(chain) = pop(queue, memory)? {
        return Ok(Some(chain));
    }
    if !queue.enable_notification(memory)? {
        return Ok(None);
    }
    match pop(queue, memory)? {
        Some(chain) => Ok(Some(chain)),
        None => Err(QueueError::InvalidAvailRingIndex),
    }
}

/// Waits for the kicks of a device's queues or the stop.
struct Wait(Epoll);

const STOP: u64 = 0;
const KICK: u64 = 1;

impl Wait {
    fn new<'a>(kicks: impl IntoIterator<Item = &'a EventFd>, stop: &Stop) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let add = |descriptor, data| {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, descriptor, event)
        };
        add(stop.as_fd().as_raw_fd(), STOP)?;
        for kick in kicks {
            add(kick.as_raw_fd(), KICK)?;
        }
        Ok(Self(epoll))
    }

    /// Waits for a kick, or not at all when there is `more` to do. Whether to stop.
    fn stopped(&self, more: bool) -> bool {
        let mut events = [EpollEvent::default(); 4];
        let timeout = if more { 0 } else { -1 };
        match event::wait(&self.0, timeout, &mut events) {
            Ok(count) => events.iter().take(count).any(|event| event.data() == STOP),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
pub mod mock {
    //! What the tests of devices that answer requests look at, and a driver that makes one.

    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use virtio_queue::desc::{RawDescriptor, split};
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::lock::lock;

    /// Counts what the device raises.
    #[derive(Default)]
    pub struct Counted {
        pub used: AtomicU32,
        pub needs_reset: AtomicU32,
        /// What the driver reads since the device has changed it.
        pub config: Mutex<Vec<u8>>,
    }

    impl Interrupt for Counted {
        fn used_buffer(&self) {
            self.used.fetch_add(1, Ordering::SeqCst);
        }
        fn set_config(&self, config: Vec<u8>, _: bool) {
            *lock(&self.config) = config;
        }
        fn needs_reset(&self, _: &str) {
            self.needs_reset.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Makes one request of these bytes, which lies at the first address, with `room` for an answer at the second; how many bytes of
    /// the answer the device says it wrote, and what is in all of the room. The queue lies at address 0.
    pub fn exchange(
        memory: &GuestMemory,
        [request_at, answer_at]: [u64; 2],
        request: &[u8],
        room: u32,
        answer: impl FnMut(&GuestMemory, DescriptorChain<&GuestMemory>) -> Option<u32>,
    ) -> (usize, Vec<u8>) {
        const NEXT: u16 = 1;
        const WRITE: u16 = 2;
        memory
            .write_slice(request, GuestAddress(request_at))
            .unwrap();
        let readable = u32::try_from(request.len()).unwrap();
        let mock = MockSplitQueue::new(memory, 16);
        let mut queue: Queue = mock.create_queue().unwrap();
        let next = if room > 0 { NEXT } else { 0 };
        let chain = [
            split::Descriptor::new(request_at, readable, next, 1),
            split::Descriptor::new(answer_at, room, WRITE, 0),
        ];
        for (index, descriptor) in (0..).zip(chain) {
            let raw = RawDescriptor::from(descriptor);
            mock.desc_table().store(index, raw).unwrap();
        }
        mock.avail().ring().ref_at(0).unwrap().store(0);
        mock.avail().idx().store(1);
        let interrupt = Counted::default();
        drain(memory, &mut queue, &interrupt, Told::Each, answer).expect("the queue is whole");
        assert_eq!(mock.used().idx().load(), 1);
        assert_eq!(interrupt.used.load(Ordering::SeqCst), 1);
        let used = mock.used().ring().ref_at(0).unwrap().load().len();
        assert!(used <= room, "{used} of {room} bytes");
        let mut bytes = vec![0; room as usize];
        memory
            .read_slice(&mut bytes, GuestAddress(answer_at))
            .unwrap();
        (used as usize, bytes)
    }
}

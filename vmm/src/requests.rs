//! How a device answers requests: chains of queues, one after the other, each with one answer, until it is told to stop.
//! Disks and shared folders do; vsock, whose two directions wait for each other, does not.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::device::{Activation, ActiveQueue, Interrupt, Stop};
use crate::memory::GuestMemory;

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
        let Some(chain) = queue.iter(memory).ok()?.next() else {
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
        match self.0.wait(timeout, &mut events) {
            Ok(count) => events.iter().take(count).any(|event| event.data() == STOP),
            Err(error) => error.kind() != io::ErrorKind::Interrupted,
        }
    }
}

#[cfg(test)]
pub mod counted {
    //! What the tests of devices that answer requests look at.

    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::device::Interrupt;

    /// Counts what the device raises.
    #[derive(Default)]
    pub struct Counted {
        pub used: AtomicU32,
        pub needs_reset: AtomicU32,
    }

    impl Interrupt for Counted {
        fn used_buffer(&self) {
            self.used.fetch_add(1, Ordering::SeqCst);
        }
        fn set_config(&self, _: Vec<u8>, _: bool) {}
        fn needs_reset(&self, _: &str) {
            self.needs_reset.fetch_add(1, Ordering::SeqCst);
        }
    }
}

//! One run of a card, from DRIVER_OK or resume to stop: the loop that waits, and the two directions.
//!
//! The link is watched for new frames alone (edge-triggered): one whose frames nobody has buffers for does not wake the
//! thread, and one that is gone does so once. Only while it is full is it watched for room, too.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use virtio_queue::{DescriptorChain, Error as QueueError, QueueOwnedT, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::Net;
use super::spec::*;
use super::used::{add_used_together, needs_notification};
use crate::device::{Activation, ActiveQueue, Interrupt, Stop};
use crate::event::wait;
use crate::memory::{GuestMemory, Reader, Writer};
use crate::requests::next_chain;

/// Frames moved in one direction before the other one and the stop descriptor get their turn.
const TURN: usize = 64;

const STOP: u64 = 0;
const KICKED_RX: u64 = 1;
const KICKED_TX: u64 = 2;
const LINK: u64 = 3;

/// Everything a running card needs beside what it is.
pub struct Session<'m> {
    net: &'m Net,
    memory: &'m GuestMemory,
    rx: &'m mut ActiveQueue,
    tx: &'m mut ActiveQueue,
    interrupt: &'m dyn Interrupt,
    epoll: Epoll,
    /// The driver takes frames in several buffers.
    mergeable: bool,
    /// A frame on its way to the link, and its length; 0 = none.
    outgoing: Vec<u8>,
    outgoing_bytes: usize,
    /// A frame on its way to the guest, and its length; 0 = none.
    incoming: Vec<u8>,
    incoming_bytes: usize,
    /// Its buffers, for a moment.
    buffers: Vec<(u16, Writer<'m>)>,
    used: Vec<(u16, u32)>,
    /// The link may have frames.
    link_waiting: bool,
    /// The guest has not enough buffers for the frame; its kick ends this.
    starved: bool,
    /// The TX queue may hold more frames.
    tx_waiting: bool,
    /// The link has no room for the frame; an event of its ends this.
    link_full: bool,
}

impl<'m> Session<'m> {
    /// A run of `net`, until `stop`, over the two queues of section 5.1.2.
    ///
    /// # Errors
    /// When no descriptor is left, a queue is missing, or the host cannot do what the driver wants.
    pub fn new(net: &'m Net, activation: &'m mut Activation, stop: &Stop) -> io::Result<Self> {
        let [rx, tx] = &mut activation.queues[..] else {
            return Err(ErrorKind::InvalidInput.into());
        };
        net.link
            .set_offloads(activation.features & GUEST_OFFLOADS)?;
        let epoll = Epoll::new()?;
        for (descriptor, number, edge) in [
            (stop.as_fd().as_raw_fd(), STOP, EventSet::empty()),
            (rx.kick.as_raw_fd(), KICKED_RX, EventSet::empty()),
            (tx.kick.as_raw_fd(), KICKED_TX, EventSet::empty()),
            (net.link.as_fd().as_raw_fd(), LINK, EventSet::EDGE_TRIGGERED),
        ] {
            let event = EpollEvent::new(EventSet::IN | edge, number);
            epoll.ctl(ControlOperation::Add, descriptor, event)?;
        }
        Ok(Self {
            net,
            memory: &activation.memory,
            rx,
            tx,
            interrupt: &*activation.interrupt,
            epoll,
            mergeable: activation.features & VIRTIO_NET_F_MRG_RXBUF != 0,
            outgoing: vec![0; FRAME_BYTES],
            outgoing_bytes: 0,
            incoming: vec![0; FRAME_BYTES],
            incoming_bytes: 0,
            buffers: Vec::new(),
            used: Vec::new(),
            link_waiting: true,
            starved: false,
            tx_waiting: true,
            link_full: false,
        })
    }

    /// Serves until told to stop. A frame that the guest has no buffers for is then lost, as frames may be.
    ///
    /// # Errors
    /// What only a reset helps against.
    pub fn serve(mut self) -> Result<(), QueueError> {
        // A driver may leave pairs alone, or have one queue of a pair for the control queue where it wants one pair alone.
        if !self.rx.queue.ready() || !self.tx.queue.ready() {
            return Ok(());
        }
        let mut events = [EpollEvent::default(); 4];
        loop {
            self.transmit()?;
            self.receive()?;
            let ready = wait(&self.epoll, self.timeout_ms(), &mut events).map_err(|error| {
                tracing::error!("wait for events of a network card: {error}");
                QueueError::QueueNotReady
            })?;
            for event in events.iter().take(ready) {
                match event.data() {
                    STOP => return Ok(()),
                    // Reading only clears a kick: the queue says what there is to do.
                    KICKED_RX => {
                        self.starved = false;
                        let _ = self.rx.kick.read();
                    }
                    KICKED_TX => {
                        self.tx_waiting = true;
                        let _ = self.tx.kick.read();
                    }
                    // One that is gone has room for what it refuses.
                    _ => {
                        let set = EventSet::from_bits_truncate(event.events());
                        let gone = EventSet::ERROR | EventSet::HANG_UP;
                        self.link_waiting |= set.intersects(EventSet::IN | gone);
                        if self.link_full && set.intersects(EventSet::OUT | gone) {
                            self.link_full = false;
                            self.watch_link(EventSet::empty());
                        }
                    }
                }
            }
        }
    }

    /// How long to wait for events: not at all when there are frames, but for those that are to wait; -1 = for ever.
    fn timeout_ms(&self) -> i32 {
        let [sent, received] = &self.net.meters;
        let has_incoming = self.incoming_bytes > 0 || self.link_waiting;
        let has_outgoing = self.outgoing_bytes > 0 || self.tx_waiting;
        let outgoing = has_outgoing && !self.link_full;
        let outgoing = outgoing.then(|| sent.wait().unwrap_or_default());
        let incoming = has_incoming && !self.starved;
        let incoming = incoming.then(|| received.wait().unwrap_or_default());
        let waits = outgoing.into_iter().chain(incoming);
        // Rounded up: less than a millisecond would be none.
        let ms = |wait: Duration| wait.as_nanos().div_ceil(1_000_000);
        waits
            .min()
            .map_or(-1, |wait| i32::try_from(ms(wait)).unwrap_or(i32::MAX))
    }

    /// Guest to link, for a turn.
    fn transmit(&mut self) -> Result<(), QueueError> {
        if self.link_full || self.outgoing_bytes == 0 && !self.tx_waiting {
            return Ok(());
        }
        self.tx.queue.disable_notification(self.memory)?;
        let before = self.tx.queue.next_used();
        let meter = &self.net.meters[0];
        for _ in 0..TURN {
            if meter.wait().is_some() || !self.fetch()? {
                break;
            }
            if self.outgoing_bytes == 0 {
                continue;
            }
            match self.net.link.send(&self.outgoing[..self.outgoing_bytes]) {
                Ok(()) => meter.passed(self.outgoing_bytes - HEADER_BYTES),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.link_full = true;
                    self.watch_link(EventSet::OUT);
                    break;
                }
                Err(fault) => self.lost(&fault),
            }
            self.outgoing_bytes = 0;
        }
        let queue = &mut self.tx.queue;
        if queue.next_used() != before && needs_notification(queue, self.memory, before)? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Fetches the guest's next frame, unless one is there; false when there is no more. What is no frame is lost. Its buffers are the guest's
    /// again at once.
    fn fetch(&mut self) -> Result<bool, QueueError> {
        if self.outgoing_bytes > 0 {
            return Ok(true);
        }
        let Some(chain) = next_chain(&mut self.tx.queue, self.memory)? else {
            self.tx_waiting = false;
            return Ok(false);
        };
        let head = chain.head_index();
        match copy(self.memory, chain, &mut self.outgoing) {
            Ok(bytes) => self.outgoing_bytes = bytes,
            Err(fault) => self.lost(&fault),
        }
        self.tx.queue.add_used(self.memory, head, 0)?;
        Ok(true)
    }

    fn lost(&self, fault: &io::Error) {
        let faults = &self.net.faults;
        faults.log(format_args!("a frame of the guest is lost: {fault}"));
    }

    /// Watches the link for `more` than new frames; what it is already is told as new.
    fn watch_link(&self, more: EventSet) {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED | more, LINK);
        let link = self.net.link.as_fd().as_raw_fd();
        if let Err(error) = self.epoll.ctl(ControlOperation::Modify, link, event) {
            self.net
                .faults
                .log(format_args!("watch a network card's link: {error}"));
        }
    }

    /// Link to guest, for a turn.
    fn receive(&mut self) -> Result<(), QueueError> {
        let before = self.rx.queue.next_used();
        for _ in 0..TURN {
            let meter = &self.net.meters[1];
            if self.starved || meter.wait().is_some() || !self.take() {
                break;
            }
            match self.fill()? {
                true => {
                    meter.passed(self.incoming_bytes - HEADER_BYTES);
                    self.incoming_bytes = 0;
                }
                false => self.starved = true,
            }
        }
        let queue = &mut self.rx.queue;
        if !self.starved {
            queue.disable_notification(self.memory)?;
        }
        if queue.next_used() != before && needs_notification(queue, self.memory, before)? {
            self.interrupt.used_buffer();
        }
        Ok(())
    }

    /// Takes a frame of the link's, unless one waits; whether one does.
    fn take(&mut self) -> bool {
        while self.incoming_bytes == 0 && self.link_waiting {
            match self.net.link.receive(&mut self.incoming) {
                Ok(bytes) if bytes > HEADER_BYTES => self.incoming_bytes = bytes.min(FRAME_BYTES),
                Ok(_) => {}
                // Of one frame only: others may be behind it.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    let faults = &self.net.faults;
                    faults.log(format_args!("no frame from a network card's link: {error}"));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.link_waiting = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        let faults = &self.net.faults;
                        faults.log(format_args!("a network card's link is down: {error}"));
                        self.interrupt.set_config(self.net.config(0), true);
                    }
                }
            }
        }
        self.incoming_bytes > 0
    }

    /// Writes the frame into as many buffers as it takes; whether there were enough.
    fn fill(&mut self) -> Result<bool, QueueError> {
        let mut room = 0;
        while room < self.incoming_bytes {
            let queue = &mut self.rx.queue;
            let is_all =
                self.buffers.len() == usize::from(if self.mergeable { queue.size() } else { 1 });
            let chain = if is_all {
                None
            } else {
                next_chain(queue, self.memory)?
            };
            let Some(chain) = chain else {
                for _ in self.buffers.drain(..) {
                    queue.go_to_previous_position();
                }
                // What will never fit is lost.
                return Ok(is_all);
            };
            let head = chain.head_index();
            let writer = chain
                .writer(self.memory)
                .map_err(|_| QueueError::InvalidChain)?;
            if writer.available_bytes() < HEADER_BYTES {
                return Err(QueueError::InvalidChain);
            }
            room += writer.available_bytes();
            self.buffers.push((head, writer));
        }
        let count = u16::try_from(self.buffers.len()).map_err(|_| QueueError::InvalidChain)?;
        let frame = &mut self.incoming[..self.incoming_bytes];
        frame[NUM_BUFFERS_OFFSET..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        self.scatter()?;
        Ok(true)
    }

    /// Writes the frame into the buffers gathered for it, and gives these to the guest.
    fn scatter(&mut self) -> Result<(), QueueError> {
        let mut rest = &self.incoming[..self.incoming_bytes];
        for (head, mut writer) in self.buffers.drain(..) {
            let (part, later) = rest.split_at(rest.len().min(writer.available_bytes()));
            // There is room, and the memory is the guest's own.
            let _ = writer.write_all(part);
            self.used
                .push((head, u32::try_from(part.len()).unwrap_or(0)));
            rest = later;
        }
        let used = add_used_together(&mut self.rx.queue, self.memory, &self.used);
        self.used.clear();
        used
    }
}

/// Copies the frame in `chain` to `buffer`; its length, bytes.
fn copy(
    memory: &GuestMemory,
    chain: DescriptorChain<&GuestMemory>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut frame: Reader<'_> = chain.reader(memory).map_err(io::Error::other)?;
    let bytes = frame.available_bytes();
    if bytes < HEADER_BYTES + ETHERNET_BYTES {
        return Err(io::Error::other("it is too short"));
    }
    let buffer = buffer.get_mut(..bytes);
    let buffer = buffer.ok_or_else(|| io::Error::other("it is too long"))?;
    frame.read_exact(buffer)?;
    Ok(bytes)
}

//! One virtio-mmio device wired up: its registers behind a lock that vCPU threads take, an irqfd, an ioeventfd for each
//! queue, and a thread on which the device serves whenever the driver has it running.
//!
//! The thread exists from the start, so that it has confined itself before the guest's first instruction and no vCPU
//! ever needs the right to make a thread. It waits for orders; a reset signals the device's [`Stop`] and waits until
//! the device has given itself back.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};
use kvm_ioctls::{IoEventAddress, VmFd};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::registers::{Effect, Live, Registers};
use super::spec::offset;
use crate::device::{Activation, ActiveQueue, Device, Interrupt, Stop};
use crate::irq::IrqLine;
use crate::layout::{slot_address, slot_irq};
use crate::memory::GuestMemory;

/// What the driver's DRIVER_OK asks of the device's thread.
struct Order {
    features: u64,
    queues: Vec<Queue>,
}

/// The vCPUs' side of a device.
pub struct Transport {
    registers: Registers,
    irq: Arc<IrqLine>,
    memory: GuestMemory,
    kicks: Vec<EventFd>,
    stop: EventFd,
    orders: Sender<Order>,
    returns: Receiver<()>,
    running: bool,
}

/// The device's side: what its thread owns.
pub struct Server {
    device: Box<dyn Device>,
    irq: Arc<IrqLine>,
    memory: GuestMemory,
    kicks: Vec<EventFd>,
    stop: Stop,
    orders: Receiver<Order>,
    returns: Sender<()>,
}

/// Makes everything that a device in slot `index` needs, but for its thread.
///
/// # Errors
/// When descriptors run out or KVM refuses one.
pub fn wire(
    vm: &VmFd,
    index: u8,
    device: Box<dyn Device>,
    memory: &GuestMemory,
) -> Result<(Transport, Server)> {
    let irq = Arc::new(IrqLine::new().context("create interrupt event")?);
    vm.register_irqfd(irq.event(), slot_irq(index))
        .context("register irqfd")?;
    let queue_sizes = device.queue_sizes();
    let kicks = queue_sizes
        .iter()
        .map(|_| event())
        .collect::<io::Result<Vec<_>>>()
        .context("create queue event")?;
    for (queue, kick) in (0u32..).zip(&kicks) {
        let address = IoEventAddress::Mmio(slot_address(index) + offset::QUEUE_NOTIFY);
        vm.register_ioevent(kick, &address, queue)
            .context("register ioeventfd")?;
    }
    let (transport, server) = connect(device, memory, irq, kicks).context("wire device")?;
    Ok((transport, server))
}

/// [`wire`] without KVM.
fn connect(
    device: Box<dyn Device>,
    memory: &GuestMemory,
    irq: Arc<IrqLine>,
    kicks: Vec<EventFd>,
) -> io::Result<(Transport, Server)> {
    let (orders, orders_there) = channel();
    let (returns_there, returns) = channel();
    let stop = event()?;
    let server_kicks = kicks
        .iter()
        .map(EventFd::try_clone)
        .collect::<io::Result<_>>()?;
    let registers = Registers::new(
        device.id(),
        device.features(),
        device.queue_sizes(),
        device.config(),
    );
    let server = Server {
        device,
        irq: irq.clone(),
        memory: memory.clone(),
        kicks: server_kicks,
        stop: Stop::new(stop.try_clone()?),
        orders: orders_there,
        returns: returns_there,
    };
    let memory = memory.clone();
    let transport = Transport {
        registers,
        irq,
        memory,
        kicks,
        stop,
        orders,
        returns,
        running: false,
    };
    Ok((transport, server))
}

fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
}

impl Transport {
    /// The driver reads `data` at `at`.
    pub fn read(&self, at: u64, data: &mut [u8]) {
        let live = Live {
            interrupt_status: self.irq.status(),
            config_generation: self.irq.config_generation(),
            needs_reset: self.irq.wants_reset(),
        };
        self.registers.read(at, data, live);
    }

    /// The driver writes `data` at `at`. Returns when a reset is complete.
    pub fn write(&mut self, at: u64, data: &[u8]) {
        match self.registers.write(at, data) {
            Effect::None => {}
            Effect::Activate => self.activate(),
            Effect::Reset => {
                self.halt();
                self.irq.reset();
            }
            Effect::Acknowledge(bits) => self.irq.acknowledge(bits),
            Effect::Kick(queue) => {
                if let Some(kick) = usize::try_from(queue)
                    .ok()
                    .and_then(|queue| self.kicks.get(queue))
                {
                    // Fails only when the counter would overflow: then it is signalled.
                    let _ = kick.write(1);
                }
            }
        }
    }

    /// Signals the device to give itself back, for good once `self` is dropped; its thread then ends.
    pub fn signal_stop(&self) {
        // Fails only when the counter would overflow: then it is signalled.
        let _ = self.stop.write(1);
    }

    fn activate(&mut self) {
        let queues = self.registers.build_queues().filter(|queues| {
            queues
                .iter()
                .all(|queue| !queue.ready() || queue.is_valid(&self.memory))
        });
        let Some(queues) = queues else {
            tracing::warn!("guest set up a queue outside its memory or of a bad size");
            self.irq.needs_reset();
            return;
        };
        let order = Order {
            features: self.registers.driver_features(),
            queues,
        };
        self.running = self.orders.send(order).is_ok();
    }

    fn halt(&mut self) {
        if std::mem::take(&mut self.running) {
            self.signal_stop();
            // The thread is gone only when the machine is.
            let _ = self.returns.recv();
            // For the next run; nothing to read is fine.
            let _ = self.stop.read();
        }
    }
}

impl Server {
    /// Serves the device whenever the driver has it running, until the transport is gone. Gives the device back.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn serve(mut self) -> io::Result<Box<dyn Device>> {
        while let Ok(Order { features, queues }) = self.orders.recv() {
            let kicks = self
                .kicks
                .iter()
                .map(EventFd::try_clone)
                .collect::<io::Result<Vec<_>>>()?;
            let queues = queues
                .into_iter()
                .zip(kicks)
                .map(|(queue, kick)| ActiveQueue { queue, kick })
                .collect();
            let interrupt = self.irq.clone() as Arc<dyn Interrupt>;
            let activation = Activation {
                memory: self.memory.clone(),
                features,
                queues,
                interrupt,
            };
            let (device, _queues) = self.device.run(activation, &self.stop);
            self.device = device;
            if self.returns.send(()).is_err() {
                break;
            }
        }
        Ok(self.device)
    }
}

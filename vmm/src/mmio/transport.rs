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
    let irq = Arc::new(IrqLine::new(device.config()).context("create interrupt event")?);
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
    let registers = Registers::new(device.id(), device.features(), device.queue_sizes());
    let server = Server {
        device,
        irq: irq.clone(),
        memory: memory.clone(),
        kicks,
        stop: Stop::new(stop.try_clone()?),
        orders: orders_there,
        returns: returns_there,
    };
    let memory = memory.clone();
    let transport = Transport {
        registers,
        irq,
        memory,
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
        let config = self.irq.config();
        let live = Live {
            config: &config,
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
            let why = "the guest set up a queue outside its memory or of a bad size";
            self.irq.needs_reset(why);
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::RecvTimeoutError;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::mmio::spec::{VIRTIO_F_VERSION_1, status};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Counts its runs, and runs until stopped or, told so, not at all.
    struct Counter {
        runs: Arc<Mutex<u32>>,
        begun: Sender<u32>,
        patient: bool,
    }

    impl Device for Counter {
        fn id(&self) -> u32 {
            9
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_sizes(&self) -> &'static [u16] {
            &[8]
        }
        fn config(&self) -> Vec<u8> {
            vec![]
        }
        fn run(
            self: Box<Self>,
            activation: Activation,
            stop: &Stop,
        ) -> (Box<dyn Device>, Vec<Queue>) {
            *self.runs.lock().unwrap() += 1;
            self.begun.send(*self.runs.lock().unwrap()).unwrap();
            if self.patient {
                let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
                let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(stop));
                let event =
                    vmm_sys_util::epoll::EpollEvent::new(vmm_sys_util::epoll::EventSet::IN, 0);
                epoll
                    .ctl(vmm_sys_util::epoll::ControlOperation::Add, fd, event)
                    .unwrap();
                epoll.wait(-1, &mut [event]).unwrap();
            }
            (self, activation.into_queues())
        }
    }

    struct Wired {
        transport: Transport,
        thread: thread::JoinHandle<io::Result<Box<dyn Device>>>,
        begun: Receiver<u32>,
    }

    fn wired(patient: bool) -> Wired {
        let (begun_there, begun) = channel();
        let device = Counter {
            runs: Arc::default(),
            begun: begun_there,
            patient,
        };
        let memory = crate::memory::map(1, 0).unwrap();
        let irq = Arc::new(IrqLine::new(vec![]).unwrap());
        let (transport, server) =
            connect(Box::new(device), &memory, irq, vec![event().unwrap()]).unwrap();
        Wired {
            transport,
            thread: thread::spawn(|| server.serve()),
            begun,
        }
    }

    fn write(transport: &mut Transport, at: u64, value: u32) {
        transport.write(at, &value.to_le_bytes());
    }

    fn read(transport: &Transport, at: u64) -> u32 {
        let mut data = [0; 4];
        transport.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    /// A driver's way to DRIVER_OK, with its queue's rings at `rings`.
    fn bring_up(transport: &mut Transport, rings: u32) {
        write(transport, offset::STATUS, status::DRIVER);
        write(transport, offset::DRIVER_FEATURES_SEL, 1);
        write(
            transport,
            offset::DRIVER_FEATURES,
            u32::try_from(VIRTIO_F_VERSION_1 >> 32).unwrap(),
        );
        write(
            transport,
            offset::STATUS,
            status::DRIVER | status::FEATURES_OK,
        );
        for at in [
            offset::QUEUE_DESC_LOW,
            offset::QUEUE_DRIVER_LOW,
            offset::QUEUE_DEVICE_LOW,
        ] {
            write(transport, at, rings);
        }
        write(transport, offset::QUEUE_READY, 1);
        write(
            transport,
            offset::STATUS,
            status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        );
    }

    #[test]
    fn transport_reset_of_a_running_device_lets_it_run_again() {
        for patient in [true, false] {
            let Wired {
                mut transport,
                thread,
                begun,
            } = wired(patient);
            for run in 1..=3 {
                bring_up(&mut transport, 0x1000);
                assert_eq!(begun.recv_timeout(DEADLINE), Ok(run));
                write(&mut transport, offset::STATUS, 0);
                assert_eq!(read(&transport, offset::STATUS), 0);
            }
            drop(transport);
            assert_eq!(thread.join().unwrap().unwrap().id(), 9);
        }
    }

    #[test]
    fn transport_stopped_while_running_gives_the_device_back() {
        let Wired {
            mut transport,
            thread,
            begun,
        } = wired(true);
        bring_up(&mut transport, 0x1000);
        assert_eq!(begun.recv_timeout(DEADLINE), Ok(1));
        transport.signal_stop();
        drop(transport);
        assert_eq!(thread.join().unwrap().unwrap().id(), 9);
    }

    #[test]
    fn transport_queue_outside_memory_needs_reset_and_does_not_run() {
        let Wired {
            mut transport,
            thread,
            begun,
        } = wired(true);
        bring_up(&mut transport, 0xffff_f000);
        assert_ne!(
            read(&transport, offset::STATUS) & status::DEVICE_NEEDS_RESET,
            0
        );
        write(&mut transport, offset::STATUS, 0);
        assert_eq!(read(&transport, offset::STATUS), 0);
        drop(transport);
        thread.join().unwrap().unwrap();
        assert_eq!(
            begun.recv_timeout(DEADLINE),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}

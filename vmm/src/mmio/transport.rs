//! One virtio-mmio device wired up: its registers behind a lock that vCPU threads take, an irqfd, an ioeventfd for each
//! queue, and a thread for each of its parts, on which that serves whenever the driver has the device running.
//!
//! The threads exist from the start, so that they have confined themselves before the guest's first instruction and no vCPU
//! ever needs the right to make a thread. They wait for orders; a reset signals the device's [`Stop`] and waits until
//! all parts have given themselves back.

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

/// What the driver's DRIVER_OK asks of a part's thread.
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
    parts: Vec<Part>,
    running: bool,
}

/// The vCPUs' side of a part of a device.
struct Part {
    queues: usize,
    orders: Sender<Order>,
    returns: Receiver<()>,
}

/// The other side of it: what its thread owns.
pub struct Server {
    device: Box<dyn Device>,
    irq: Arc<IrqLine>,
    memory: GuestMemory,
    kicks: Vec<EventFd>,
    stop: Stop,
    orders: Receiver<Order>,
    returns: Sender<()>,
}

/// Makes everything that a device in slot `index` needs, but for its threads.
///
/// # Errors
/// When descriptors run out or KVM refuses one.
pub fn wire(
    vm: &VmFd,
    index: u8,
    parts: Vec<Box<dyn Device>>,
    memory: &GuestMemory,
) -> Result<(Transport, Vec<Server>)> {
    let first = parts.first().context("a device without parts")?;
    let irq = Arc::new(IrqLine::new(first.config()).context("create interrupt event")?);
    let registers = Registers::new(first.id(), first.features(), &queue_sizes(&parts));
    vm.register_irqfd(irq.event(), slot_irq(index))
        .context("register irqfd")?;
    let events = queue_sizes(&parts).into_iter().map(|_| event());
    let kicks: io::Result<Vec<_>> = events.collect();
    let kicks = kicks.context("create queue event")?;
    for (queue, kick) in (0u32..).zip(&kicks) {
        let address = IoEventAddress::Mmio(slot_address(index) + offset::QUEUE_NOTIFY);
        vm.register_ioevent(kick, &address, queue)
            .context("register ioeventfd")?;
    }
    connect(registers, parts, memory, irq, kicks).context("wire device")
}

fn queue_sizes(parts: &[Box<dyn Device>]) -> Vec<u16> {
    let sizes = parts.iter().map(|part| part.queue_sizes());
    sizes.collect::<Vec<_>>().concat()
}

/// [`wire`] without KVM.
fn connect(
    registers: Registers,
    devices: Vec<Box<dyn Device>>,
    memory: &GuestMemory,
    irq: Arc<IrqLine>,
    kicks: Vec<EventFd>,
) -> io::Result<(Transport, Vec<Server>)> {
    let stop = event()?;
    let mut kicks = kicks.into_iter();
    let (mut parts, mut servers) = (Vec::new(), Vec::new());
    for device in devices {
        let (orders, orders_there) = channel();
        let (returns_there, returns) = channel();
        let queues = device.queue_sizes().len();
        parts.push(Part {
            queues,
            orders,
            returns,
        });
        servers.push(Server {
            device,
            irq: irq.clone(),
            memory: memory.clone(),
            kicks: kicks.by_ref().take(queues).collect(),
            stop: Stop::new(stop.try_clone()?),
            orders: orders_there,
            returns: returns_there,
        });
    }
    let transport = Transport {
        registers,
        irq,
        memory: memory.clone(),
        stop,
        parts,
        running: false,
    };
    Ok((transport, servers))
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

    /// Signals the device to give itself back, for good once `self` is dropped; its threads then end.
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
        let mut queues = queues.into_iter();
        for part in &self.parts {
            let order = Order {
                features: self.registers.driver_features(),
                queues: queues.by_ref().take(part.queues).collect(),
            };
            // A thread is gone only when the machine is.
            let _ = part.orders.send(order);
        }
        self.running = true;
    }

    fn halt(&mut self) {
        if std::mem::take(&mut self.running) {
            self.signal_stop();
            for part in &self.parts {
                let _ = part.returns.recv();
            }
            // For the next run; nothing to read is fine.
            let _ = self.stop.read();
        }
    }
}

impl Server {
    /// Serves its part whenever the driver has the device running, until the transport is gone. Gives it back.
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
        /// Is told of each run's number and queues.
        begun: Sender<(u32, Vec<u16>)>,
        patient: bool,
        queue_sizes: &'static [u16],
    }

    impl Device for Counter {
        fn id(&self) -> u32 {
            9
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_sizes(&self) -> &'static [u16] {
            self.queue_sizes
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
            let queues = activation.queues.iter();
            let queues = queues.map(|active| active.queue.max_size()).collect();
            let run = *self.runs.lock().unwrap();
            self.begun.send((run, queues)).unwrap();
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
        threads: Vec<thread::JoinHandle<io::Result<Box<dyn Device>>>>,
        begun: Receiver<(u32, Vec<u16>)>,
    }

    /// Queues of the parts of a device.
    const PARTS: [&[u16]; 2] = [&[8], &[16, 32]];

    /// A device of two parts, each of which says when it begins.
    fn wired(patient: bool) -> Wired {
        let (begun_there, begun) = channel();
        let part = |queue_sizes| -> Box<dyn Device> {
            Box::new(Counter {
                runs: Arc::default(),
                begun: begun_there.clone(),
                patient,
                queue_sizes,
            })
        };
        let parts = Vec::from(PARTS.map(part));
        let memory = crate::memory::map(1, 0).unwrap();
        let irq = Arc::new(IrqLine::new(vec![]).unwrap());
        let registers = Registers::new(9, 0, &queue_sizes(&parts));
        let kicks = (0..3).map(|_| event().unwrap()).collect();
        let (transport, servers) = connect(registers, parts, &memory, irq, kicks).unwrap();
        let threads = servers
            .into_iter()
            .map(|server| thread::spawn(|| server.serve()));
        Wired {
            transport,
            threads: threads.collect(),
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
                threads,
                begun,
            } = wired(patient);
            for run in 1..=3 {
                bring_up(&mut transport, 0x1000);
                let mut begun = PARTS.map(|_| begun.recv_timeout(DEADLINE).unwrap());
                begun.sort_by_key(|(_, queues)| queues.len());
                assert_eq!(begun, PARTS.map(|queues| (run, queues.to_vec())));
                write(&mut transport, offset::STATUS, 0);
                assert_eq!(read(&transport, offset::STATUS), 0);
            }
            drop(transport);
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap().id(), 9);
            }
        }
    }

    #[test]
    fn transport_stopped_while_running_gives_the_device_back() {
        let Wired {
            mut transport,
            threads,
            begun,
        } = wired(true);
        bring_up(&mut transport, 0x1000);
        assert_eq!(begun.recv_timeout(DEADLINE).unwrap().0, 1);
        transport.signal_stop();
        drop(transport);
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap().id(), 9);
        }
    }

    #[test]
    fn transport_queue_outside_memory_needs_reset_and_does_not_run() {
        let Wired {
            mut transport,
            threads,
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
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(
            begun.recv_timeout(DEADLINE),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}

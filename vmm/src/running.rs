//! A machine at work: its threads, how it is told to stop, and what is left of it. The caller keeps its own thread and
//! waits for the end with whatever else it waits for.
//!
//! Threads: one for each part of a device, one for each vCPU, all made by [`Machine::start`]. Each confines itself first; no
//! vCPU enters the guest before every thread has.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};
use vmm_sys_util::signal::Killable;

use crate::end::{End, Ended};
use crate::layout::Slot;
use crate::machine::{Machine, Shared};
use crate::vcpu::kick_signal;

/// Size of a thread's stack, bytes. Less than a huge page: one of 2 MiB may lie so that its first touch takes all of it.
pub const STACK_BYTES: usize = 256 << 10;

/// What a thread is for, and so what it must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// The thread that called [`Machine::start`], which goes on with the caller's work.
    Owner,
    /// Runs the guest.
    Vcpu,
    /// Serves a disk.
    Disk,
    /// Serves the control channel.
    Vsock,
    /// Serves shared folders.
    Fs,
    /// Serves a network card.
    Net,
    /// Plugs memory.
    Mem,
    /// Takes memory back.
    Balloon,
}

impl ThreadKind {
    /// The kind of thread that serves the device in `slot`.
    pub fn of(slot: Slot) -> Self {
        match slot {
            Slot::ImagesDisk | Slot::ScratchDisk => Self::Disk,
            Slot::Vsock => Self::Vsock,
            Slot::Fs(_) => Self::Fs,
            Slot::Net(_) => Self::Net,
            Slot::Mem => Self::Mem,
            Slot::Balloon => Self::Balloon,
        }
    }
}

/// A machine whose threads run.
pub struct Running {
    vcpus: Vec<JoinHandle<u64>>,
    devices: Vec<JoinHandle<()>>,
    shared: Shared,
}

/// What every new thread passes before its work: it confines itself, says so, and waits for the others.
struct Gate {
    confine: Box<dyn Fn(ThreadKind) -> Result<()> + Send + Sync>,
    confined: Sender<Result<()>>,
    /// Whether the machine starts.
    starts: OnceLock<bool>,
}

impl Gate {
    /// Whether the machine starts.
    fn pass(&self, kind: ThreadKind) -> bool {
        let result = (self.confine)(kind).with_context(|| format!("confine {kind:?} thread"));
        self.confined.send(result).is_ok() && *self.starts.wait()
    }
}

impl Machine {
    /// Starts the machine. Every thread calls `confine` with its kind before anything else, this one last; only then
    /// does the guest run.
    ///
    /// # Errors
    /// When a thread cannot be made or confined; then nothing of the machine is left.
    pub fn start(
        self,
        confine: impl Fn(ThreadKind) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Running> {
        let (confined, confinements) = channel();
        let gate = Arc::new(Gate {
            confine: Box::new(confine),
            confined,
            starts: OnceLock::new(),
        });
        let running = self.spawn(&gate, &confinements);
        gate.starts.get_or_init(|| running.is_ok());
        running
    }

    /// Makes the threads, and waits until each has confined itself.
    fn spawn(self, gate: &Arc<Gate>, confinements: &Receiver<Result<()>>) -> Result<Running> {
        let mut running = Running {
            vcpus: Vec::new(),
            devices: Vec::new(),
            shared: self.shared,
        };
        for (kind, server) in self.servers {
            let gate = gate.clone();
            let serve = move || {
                if gate.pass(kind)
                    && let Err(error) = server.serve()
                {
                    tracing::error!("{kind:?} device gave up: {error}");
                }
            };
            let name = format!("{kind:?}").to_lowercase();
            running.devices.push(spawn(name, serve)?);
        }
        for (id, vcpu) in self.vcpus.into_iter().enumerate() {
            let gate = gate.clone();
            let run = move || match gate.pass(ThreadKind::Vcpu) {
                true => vcpu.run(),
                false => 0,
            };
            running.vcpus.push(spawn(format!("vcpu{id}"), run)?);
        }
        for _ in 0..running.devices.len() + running.vcpus.len() {
            confinements.recv()??;
        }
        (gate.confine)(ThreadKind::Owner).context("confine the owner's thread")?;
        Ok(running)
    }
}

fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let context = format!("create thread {name}");
    let builder = Builder::new().name(name).stack_size(STACK_BYTES);
    builder.spawn(work).context(context)
}

impl Running {
    /// Ends the machine unless it has ended.
    pub fn stop(&self) {
        self.shared.note.set(End::Stopped);
    }

    /// A descriptor that is readable, and stays so, once the machine has ended; then [`Running::join`] it.
    pub fn end_event(&self) -> BorrowedFd<'_> {
        self.shared.note.as_fd()
    }

    /// Waits for the machine's threads and says how it ended; a machine that still runs is stopped. Device threads
    /// have finished the requests they had begun.
    pub fn join(self) -> Ended {
        let Shared { bus, note, .. } = self.shared;
        let end = note.set(End::Stopped).clone();
        let mut exits = 0;
        for vcpu in self.vcpus {
            // Fails when the thread is gone already.
            let _ = vcpu.kill(kick_signal());
            exits += vcpu.join().unwrap_or(0);
        }
        let last_words = bus.last_words();
        bus.signal_stop();
        // The last one to hold the transports, and so the ends of the device threads' order channels.
        drop(bus);
        for device in self.devices {
            let _ = device.join();
        }
        Ended {
            end,
            last_words,
            exits,
        }
    }
}

//! A machine at work: its threads, how it is told to stop, and what is left of it. The caller keeps its own thread and
//! waits for the end with whatever else it waits for.
//!
//! Threads: one for each device, one for each vCPU, all made by [`Machine::start`]. Each confines itself first; no
//! vCPU enters the guest before every thread has.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};
use kvm_ioctls::VmFd;
use vmm_sys_util::signal::Killable;

use crate::bus::Bus;
use crate::end::{End, EndNote, Ended, ExitCounts};
use crate::layout::Slot;
use crate::machine::Machine;
use crate::memory::GuestMemory;
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
    vcpus: Vec<JoinHandle<ExitCounts>>,
    devices: Vec<JoinHandle<()>>,
    bus: Arc<Bus>,
    stop: StopHandle,
    stopping: Arc<AtomicBool>,
    _vm: VmFd,
    _memory: GuestMemory,
}

/// Tells a machine to stop, from any thread.
#[derive(Clone)]
pub struct StopHandle(Arc<EndNote>);

impl StopHandle {
    /// Ends the machine unless it has ended.
    pub fn stop(&self) {
        self.0.set(End::Stopped);
    }
}

/// What a new thread does before its work: confine itself, say so, and wait for the others.
struct Gate<C> {
    confine: Arc<C>,
    confined: Sender<Result<()>>,
    open: Receiver<()>,
}

impl<C: Fn(ThreadKind) -> Result<()>> Gate<C> {
    /// Whether the machine starts.
    fn pass(self, kind: ThreadKind) -> bool {
        let Self {
            confine,
            confined,
            open,
        } = self;
        let result = confine(kind).with_context(|| format!("confine {kind:?} thread"));
        confined.send(result).is_ok() && open.recv().is_ok()
    }
}

impl Machine {
    /// Starts the machine. Every thread calls `confine` with its kind before anything else, this one last; only then
    /// does the guest run.
    ///
    /// # Errors
    /// When a thread cannot be made or confined; then nothing of the machine is left.
    pub fn start<C>(self, confine: C) -> Result<Running>
    where
        C: Fn(ThreadKind) -> Result<()> + Send + Sync + 'static,
    {
        let Self {
            vcpus,
            servers,
            bus,
            note,
            stopping,
            vm,
            memory,
        } = self;
        let confine = Arc::new(confine);
        let (confined, confinements) = channel();
        let mut gates = Vec::new();
        let mut gate = || {
            let (opener, open) = channel();
            gates.push(opener);
            Gate {
                confine: confine.clone(),
                confined: confined.clone(),
                open,
            }
        };

        let mut running = Running {
            vcpus: Vec::new(),
            devices: Vec::new(),
            bus,
            stop: StopHandle(note),
            stopping,
            _vm: vm,
            _memory: memory,
        };
        for (kind, server) in servers {
            let gate = gate();
            let serve = move || {
                if gate.pass(kind)
                    && let Err(error) = server.serve()
                {
                    tracing::error!("{kind:?} device gave up: {error}");
                }
            };
            running
                .devices
                .push(spawn(format!("{kind:?}").to_lowercase(), serve)?);
        }
        for (id, vcpu) in vcpus.into_iter().enumerate() {
            let gate = gate();
            let run = move || {
                if gate.pass(ThreadKind::Vcpu) {
                    vcpu.run()
                } else {
                    ExitCounts::default()
                }
            };
            running.vcpus.push(spawn(format!("vcpu{id}"), run)?);
        }
        for _ in 0..gates.len() {
            confinements
                .recv()
                .map_err(|_| anyhow!("a thread ended while it confined itself"))??;
        }
        confine(ThreadKind::Owner).context("confine the owner's thread")?;
        for gate in gates {
            // Every thread waits here.
            let _ = gate.send(());
        }
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
    /// Something to stop the machine with, from any thread.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// A descriptor that is readable, and stays so, once the machine has ended; then [`Running::join`] it.
    pub fn end_event(&self) -> BorrowedFd<'_> {
        self.stop.0.as_fd()
    }

    /// Waits until the machine has ended, and says how. For a caller with nothing else to wait for.
    pub fn wait(self) -> Ended {
        self.stop.0.wait();
        self.join()
    }

    /// Waits for the machine's threads and says how it ended; a machine that still runs is stopped. Device threads
    /// have finished the requests they had begun.
    pub fn join(self) -> Ended {
        self.stop.stop();
        self.stopping.store(true, Ordering::SeqCst);
        let mut exits = ExitCounts::default();
        for vcpu in self.vcpus {
            // Fails when the thread is gone already.
            let _ = vcpu.kill(kick_signal());
            if let Ok(counts) = vcpu.join() {
                exits += counts;
            }
        }
        let last_words = self.bus.ports.last_words();
        self.bus.signal_stop();
        // The last one to hold the transports, and so the ends of the device threads' order channels.
        drop(self.bus);
        for device in self.devices {
            let _ = device.join();
        }
        Ended {
            end: self.stop.0.get().unwrap_or(End::Stopped),
            last_words,
            exits,
        }
    }
}

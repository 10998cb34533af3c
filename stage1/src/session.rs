//! The main thread while the machine runs: waits for the guest, the user, the outputs, the clock and the machine's
//! end, asks [`Life`] what to do about each, and does it. It never blocks on the guest.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use contract::signal::PASSED_ON;
use guest_init::protocol::{TaskId, ToHost};
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm::end::Ended;
use vmm::event::descriptor;
use vmm::mem::Size;
use vmm::running::Running;
use vmm_sys_util::eventfd::EventFd;

use crate::clients::{Answer, Clients};
use crate::control::Control;
use crate::life::{self, Action, GRACE, Life};
use crate::plan;
use crate::report::Report;
use crate::reserves::Reserves;
use crate::streams::{Ports, Pumps};
use crate::terminal;
use crate::timings::Timings;
use crate::waits;

mod visits;

/// Blocks the signals that the session reads from the returned descriptor. Called before any thread is started, so
/// that none of them takes a signal away.
///
/// # Errors
/// Those of the kernel.
pub fn block_signals() -> Result<SignalFd> {
    // A signal that the caller had ignored (nohup, a shell's background job) stays ignored.
    let mut signals: SigSet = PASSED_ON
        .into_iter()
        .filter_map(|number| Signal::try_from(number).ok())
        .filter(|signal| !is_ignored(*signal))
        .collect();
    signals.add(Signal::SIGWINCH);
    signals.thread_block().context("block signals")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("make a signal descriptor")
}

fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "nix reads a disposition only by replacing it")]
    // SAFETY: with a null new action the call only fills in the old one, which is read if it says it did.
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// All that the main thread waits on, and what it needs to act.
pub struct Session<'a> {
    /// The pod's story.
    pub life: Life,
    /// The guest's control stream.
    pub control: Control,
    /// Streams not yet dialled.
    pub ports: Ports,
    /// The apps' streams.
    pub pumps: BTreeMap<TaskId, Pumps>,
    /// What new apps need, in a mutable pod.
    pub reserves: Option<Reserves>,
    /// Who asks something of the pod.
    pub clients: Clients,
    /// Of the machine's memory, in a pod that grows.
    pub size: Option<Size>,
    /// Signalled when an output has ended, or memory has been plugged or unplugged.
    pub drained: Arc<EventFd>,
    /// The user's signals.
    pub signals: SignalFd,
    /// Where statuses go.
    pub report: Report,
    /// When the pod's time is up.
    pub deadline: Option<Instant>,
    /// When a machine whose end is due is ended.
    pub grace: Option<Instant>,
    /// Moments to record.
    pub timings: &'a Timings,
}

impl Session<'_> {
    /// Runs until the machine has ended; returns the exit code, if the pod came to one, and how the machine ended.
    ///
    /// # Errors
    /// When waiting itself fails, or the apps' readiness cannot be told.
    pub fn run(mut self, machine: Running) -> Result<(Option<u8>, Ended)> {
        loop {
            let mut actions = Vec::new();
            for source in self.wait(&machine)? {
                match source {
                    Source::End => return Ok((self.life.exit_code(), machine.join())),
                    Source::Signals => actions.extend(self.take_signals()?),
                    Source::Control => actions.extend(self.take_messages()),
                    Source::Drained => {
                        let read = self.drained.read();
                        read.context("read the event of ended outputs")?;
                    }
                    Source::Client(client) => actions.extend(self.hear_client(client)),
                }
            }
            self.pumps.retain(|task, pumps| {
                let ended = pumps.drained().then(|| self.life.on_drained(*task));
                let ended = ended.unwrap_or_default();
                let stays = ended.is_empty();
                actions.extend(ended);
                stays
            });
            let now = Instant::now();
            if self.deadline.take_if(|deadline| *deadline <= now).is_some() {
                actions.extend(self.life.on_timeout());
            }
            if self.grace.take_if(|over| *over <= now).is_some() {
                actions.extend(self.life.on_grace_over());
            }
            for action in actions {
                self.act(action, &machine)?;
            }
            if self.clients.is_awaited(life::SIZE)
                && self.size.as_ref().is_none_or(Size::is_reached)
            {
                self.clients.answer(life::SIZE, &Answer::Fits);
            }
        }
    }

    fn wait(&self, machine: &Running) -> Result<Vec<Source>> {
        let (read, end) = (PollFlags::POLLIN, machine.end_event());
        let mut sources = vec![
            (Source::End, end, read),
            (Source::Signals, self.signals.as_fd(), read),
            (Source::Drained, descriptor(&self.drained), read),
        ];
        let control = self.control.waits_for();
        sources.extend(control.map(|(control, events)| (Source::Control, control, events)));
        let clients = self.clients.descriptors().into_iter().enumerate();
        let clients = clients.map(|(place, client)| (Source::Client(place), client, read));
        // From the last: a client that leaves takes its place with it.
        sources.extend(clients.rev());
        let until = [self.deadline, self.grace].into_iter().flatten().min();
        waits::wait(sources, until, "the machine")
    }

    fn take_signals(&mut self) -> Result<Vec<Action>> {
        let mut actions = Vec::new();
        while let Some(info) = self.signals.read_signal().context("read a signal")? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGWINCH) => actions.extend(
                    terminal::window()
                        .into_iter()
                        .flat_map(|window| self.life.on_resize(window)),
                ),
                Ok(signal) => actions.extend(self.life.on_signal(signal)),
                Err(_) => {}
            }
        }
        Ok(actions)
    }

    fn take_messages(&mut self) -> Vec<Action> {
        let messages = match self.control.receive() {
            Ok(messages) => messages.into_iter(),
            Err(error) => return self.life.fail(&format!("{error:#}")),
        };
        let mut actions: Vec<_> = messages.flat_map(|message| self.hear(message)).collect();
        if self.control.waits_for().is_none() {
            // The machine is about to end by itself, and its end says why.
            actions.push(Action::StartGrace(GRACE));
        }
        actions
    }

    fn hear(&mut self, message: ToHost) -> Vec<Action> {
        match &message {
            ToHost::Hello { .. } => self.timings.mark("init"),
            ToHost::Started { .. } => self.timings.mark("exec"),
            ToHost::Exited { .. } => self.timings.mark("exited"),
            _ => {}
        }
        self.life.on_message(message)
    }

    fn act(&mut self, action: Action, machine: &Running) -> Result<()> {
        match action {
            Action::Send(message) => {
                // A guest that is gone shows by its end, which is waited for anyway.
                if let Err(error) = self.control.send(&message) {
                    tracing::debug!("{error:#}");
                }
            }
            Action::Ready => self.report.ready()?,
            Action::Record(app, code) => {
                // The host's disk may be full; the pod ends as it would have, and its caller gets the code.
                if let Err(error) = self.report.status(&app, code) {
                    crate::tell(&format!("{error:#}"));
                }
            }
            Action::Tell(text) => crate::tell(&text),
            Action::Answer(task, answer) => self.clients.answer(task, &answer),
            Action::Close(task) => self.ports.close(&plan::ports(task)),
            Action::Forget { image, shares } => {
                if let Some(reserves) = &mut self.reserves {
                    reserves.forget(image, &shares);
                }
            }
            Action::Kill => machine.stop(),
            Action::StartGrace(time) => {
                self.grace = Instant::now().checked_add(time);
            }
        }
        Ok(())
    }
}

/// What there is to hear.
enum Source {
    End,
    Signals,
    Drained,
    Control,
    /// By its place in [`Clients::descriptors`].
    Client(usize),
}

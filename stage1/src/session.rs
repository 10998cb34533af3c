//! The main thread while the machine runs: waits for the guest, the user, the outputs, the clock and the machine's
//! end, asks [`Life`] what to do about each, and does it. It never blocks on the guest.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use contract::signal::PASSED_ON;
use guest_init::protocol::{Entry, Root, Stdio, TaskId, ToHost};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm::end::Ended;
use vmm::event::descriptor;
use vmm::running::Running;
use vmm_sys_util::eventfd::EventFd;

use crate::clients::{Answer, Attachment, Clients, NewApp, Wish};
use crate::control::Control;
use crate::life::{self, Action, GRACE, Life};
use crate::plan;
use crate::report::Report;
use crate::reserves::Reserves;
use crate::streams::{Ports, Pumps};
use crate::terminal;
use crate::timings::Timings;

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
    /// Signalled when an output has ended.
    pub drained: EventFd,
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
        let mut control_open = true;
        loop {
            let next = [self.deadline, self.grace].into_iter().flatten().min();
            let ready = self.wait(&machine, control_open, next)?;
            if ready.ended {
                return Ok((self.life.exit_code(), machine.join()));
            }
            let mut actions = Vec::new();
            if ready.signal {
                actions.extend(self.take_signals()?);
            }
            if ready.control {
                actions.extend(self.take_messages(&mut control_open));
            }
            if ready.drained {
                self.drained
                    .read()
                    .context("read the event of ended outputs")?;
            }
            // From the last: a client that leaves takes its place with it.
            for client in ready.clients.into_iter().rev() {
                actions.extend(self.hear_client(client));
            }
            let drained = self.pumps.iter().filter(|(_, pumps)| pumps.drained());
            let drained: Vec<_> = drained.map(|(task, _)| *task).collect();
            for task in drained {
                let ended = self.life.on_drained(task);
                if !ended.is_empty() {
                    self.pumps.remove(&task);
                }
                actions.extend(ended);
            }
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
        }
    }

    fn wait(&self, machine: &Running, control_open: bool, next: Option<Instant>) -> Result<Ready> {
        let control_events = match self.control.has_waiting() {
            true => PollFlags::POLLIN | PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        };
        let mut descriptors = vec![
            PollFd::new(machine.end_event(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(descriptor(&self.drained), PollFlags::POLLIN),
        ];
        let clients = self.clients.descriptors();
        descriptors.extend(clients.map(|client| PollFd::new(client, PollFlags::POLLIN)));
        let clients = 3..descriptors.len();
        if control_open {
            descriptors.push(PollFd::new(self.control.stream().as_fd(), control_events));
        }
        match poll(&mut descriptors, timeout(next)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for the machine"),
        }
        let ready = |index: usize| {
            descriptors
                .get(index)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty())
        };
        Ok(Ready {
            ended: ready(0),
            signal: ready(1),
            drained: ready(2),
            control: ready(clients.end),
            clients: (0..clients.len())
                .filter(|index| ready(clients.start + index))
                .collect(),
        })
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

    fn take_messages(&mut self, open: &mut bool) -> Vec<Action> {
        let received = self.control.flush().and_then(|()| self.control.receive());
        let (messages, closed) = match received {
            Ok(received) => received,
            Err(error) => {
                *open = false;
                return self.life.on_control_broken(&format!("{error:#}"));
            }
        };
        let mut actions: Vec<_> = messages
            .into_iter()
            .flat_map(|message| self.hear(message))
            .collect();
        if closed {
            *open = false;
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

    /// Hears who came at place `index` of [`Clients::descriptors`].
    fn hear_client(&mut self, index: usize) -> Vec<Action> {
        let Some(client) = index.checked_sub(1) else {
            self.clients.accept();
            return vec![];
        };
        match self.clients.hear(client) {
            None => vec![],
            Some(Wish::Enter(entry, streams)) => match self.life.number_entry(&entry.app) {
                Ok(task) => self.enter(client, task, *entry, streams),
                Err(reason) => {
                    self.clients.refuse(client, reason);
                    vec![]
                }
            },
            Some(Wish::Stop) => self.life.on_stop(),
            Some(Wish::Signal(task, signal)) => self.life.signal_task(task, signal),
            Some(Wish::Resize(task, window)) => self.life.resize_task(task, window),
            Some(Wish::Leave(task)) => self.life.on_leave(task),
            Some(Wish::Shares(shares)) => {
                match self
                    .reserves
                    .as_mut()
                    .map(|reserves| reserves.number(&shares))
                {
                    Some(Ok(answer)) => self.clients.tell(client, &answer),
                    Some(Err(error)) => self.clients.refuse(client, format!("{error:#}")),
                    None => self.clients.refuse(client, life::FIXED.to_owned()),
                }
                vec![]
            }
            Some(Wish::Add(app, image)) => {
                match self.add(*app, image.map(File::from)) {
                    Ok(()) => self.clients.dismiss(client, &Answer::Added),
                    Err(reason) => self.clients.refuse(client, reason),
                }
                vec![]
            }
            Some(Wish::Start(app)) => {
                let started = self.start(&app);
                self.follow(client, started)
            }
            Some(Wish::StopApp(app)) => match self.life.stop_app(&app) {
                Ok(None) => {
                    self.clients.dismiss(client, &Answer::NotRunning);
                    vec![]
                }
                Ok(Some(stopping)) => self.follow(client, Ok(stopping)),
                Err(reason) => self.follow(client, Err(reason)),
            },
            Some(Wish::Endpoints(app)) => {
                match self.pumps_of(&app) {
                    Ok((_, pumps)) => {
                        let endpoints = pumps.endpoints();
                        self.clients.tell(client, &Answer::Endpoints(endpoints));
                    }
                    Err(reason) => self.clients.refuse(client, reason),
                }
                vec![]
            }
            Some(Wish::Attach(wanted, streams)) => {
                let attached = self.attach(&wanted, streams);
                self.follow(client, attached)
            }
            Some(Wish::Remove(app)) => match self.life.remove(&app) {
                Ok(None) => {
                    let shares = Vec::new();
                    self.clients.dismiss(client, &Answer::Removed { shares });
                    vec![]
                }
                Ok(Some(removal)) => self.follow(client, Ok(removal)),
                Err(reason) => self.follow(client, Err(reason)),
            },
        }
    }

    /// Lets `client` wait for a task that has been begun, or tells it why there is none.
    fn follow(
        &mut self,
        client: usize,
        begun: Result<(TaskId, Vec<Action>), String>,
    ) -> Vec<Action> {
        match begun {
            Ok((task, actions)) => {
                self.clients.wait_for(client, task);
                actions
            }
            Err(reason) => {
                self.clients.refuse(client, reason);
                vec![]
            }
        }
    }

    /// The streams of an app that runs, and its number.
    fn pumps_of(&self, app: &str) -> Result<(TaskId, &Pumps), String> {
        let task = self.life.running(app)?;
        let pumps = self.pumps.get(&task);
        let pumps = pumps.ok_or_else(|| format!("app {app:?} has no streams"))?;
        Ok((task, pumps))
    }

    fn attach(
        &mut self,
        wanted: &Attachment,
        streams: Vec<OwnedFd>,
    ) -> Result<(TaskId, Vec<Action>), String> {
        let (task, pumps) = self.pumps_of(&wanted.app)?;
        let (has, wants) = (pumps.endpoints(), wanted.endpoints);
        let mut streams = streams.into_iter().map(UnixStream::from);
        let pairs = [
            ("stdin", has.stdin, wants.stdin),
            ("stdout", has.stdout, wants.stdout),
            ("stderr", has.stderr, wants.stderr),
        ];
        let mut given = [None, None, None];
        for (place, (name, has, wants)) in given.iter_mut().zip(pairs) {
            if wants && !has {
                return Err(format!("app {:?} has no {name} to attach to", wanted.app));
            }
            if wants {
                let stream = streams.next();
                *place = Some(stream.ok_or("the streams do not fit the request")?);
            }
        }
        pumps.attach(given);
        let window = wanted.window.filter(|_| has.terminal);
        let resize = window.map(|window| self.life.resize_task(task, window));
        Ok((task, resize.unwrap_or_default()))
    }

    fn add(&mut self, app: NewApp, image: Option<File>) -> Result<(), String> {
        let NewApp {
            mut app,
            stop_signal,
            shares,
        } = app;
        let Some(reserves) = &mut self.reserves else {
            // Why not, it knows.
            return self.life.add(app, stop_signal);
        };
        if !reserves.have_shares_of(&app, &shares) {
            return Err("it needs shares that the pod does not have: try again".to_owned());
        }
        let root = image.map(|image| reserves.lay(image)).transpose();
        let root = root.map_err(|error| format!("{error:#}"))?;
        app.root = root.unwrap_or(app.root);
        let added = self.life.add(app, stop_signal);
        match (&added, root) {
            (Ok(()), _) => reserves.share(shares),
            (Err(_), Some(Root::Image { number, .. })) => reserves.forget(Some(number), &[]),
            (Err(_), _) => {}
        }
        added
    }

    /// Begins the next life of an app.
    fn start(&mut self, app: &str) -> Result<(TaskId, Vec<Action>), String> {
        let (task, stdio) = self.life.number_start(app)?;
        if let Some(reserves) = &self.reserves {
            let pumps = reserves.pumps(stdio, app, self.report.log(app));
            let pumps = pumps.map_err(|error| {
                // Those that have been started end.
                self.ports.close(&plan::ports(task));
                format!("{error:#}")
            })?;
            self.pumps.insert(task, pumps);
        }
        Ok((task, self.life.start(task)))
    }

    fn enter(
        &mut self,
        client: usize,
        task: TaskId,
        mut entry: Entry,
        streams: Vec<OwnedFd>,
    ) -> Vec<Action> {
        let window = match entry.stdio {
            Stdio::Terminal { window, .. } => Some(window),
            Stdio::Streams { .. } => None,
        };
        entry.stdio = plan::entry_stdio(plan::ports(task).start, window);
        let ports = plan::ports_of(entry.stdio);
        if ports.len() != streams.len() {
            let reason = "the streams do not fit the request".to_owned();
            self.clients.refuse(client, reason);
            return vec![];
        }
        for (port, stream) in ports.into_iter().zip(streams) {
            self.ports.lend(port, UnixStream::from(stream));
        }
        self.clients.wait_for(client, task);
        self.life.enter(task, entry)
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
            Action::Kill => machine.stop_handle().stop(),
            Action::StartGrace(time) => {
                self.grace = Instant::now().checked_add(time);
            }
        }
        Ok(())
    }
}

/// What a wait found.
struct Ready {
    ended: bool,
    signal: bool,
    drained: bool,
    control: bool,
    /// By their order in [`Clients::descriptors`].
    clients: Vec<usize>,
}

/// Milliseconds until `next`, rounded up so that it has passed when the wait is over.
pub fn timeout(next: Option<Instant>) -> PollTimeout {
    let Some(next) = next else {
        return PollTimeout::NONE;
    };
    let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left.as_millis().min(60_000)).unwrap_or(PollTimeout::ZERO)
}

//! The supervision loop: one poll over the control stream, dying children and all pumps. Nothing in it returns early or
//! waits for anything else; nothing wakes it without a reason.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use guest_init::protocol::{self, ToGuest, ToHost};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::app::{App, Part};
use crate::console;
use crate::control::Control;
use crate::fault::Fault;
use crate::pod_namespace::PodNamespace;
use crate::process;

/// How the loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The host said so.
    PoweredOff,
    /// The control stream is lost, so nobody would hear what the apps do.
    HostGone,
}

/// PID 1 once the machine is ready.
pub struct Supervisor {
    control: Control,
    deaths: SignalFd,
    pod: PodNamespace,
    apps: Vec<App>,
    ending: Option<Ending>,
    debug: bool,
}

/// What an event was on.
#[derive(Clone, Copy)]
enum Source {
    Control,
    Deaths,
    App(usize, Part),
}

/// Events of one turn; `None` stands for bits that nix does not name.
type Events = Vec<(Source, Option<PollFlags>)>;

impl Supervisor {
    /// Ready for the loop; signals are blocked already.
    pub fn new(control: Control, debug: bool) -> Result<Self> {
        let mut child_died = SigSet::empty();
        child_died.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let deaths = SignalFd::with_flags(&child_died, flags)
            .context("make the descriptor of dying children")?;
        Ok(Self {
            control,
            deaths,
            pod: PodNamespace::new()?,
            apps: Vec::new(),
            ending: None,
            debug,
        })
    }

    /// Runs until the machine is to end.
    pub fn run(mut self) -> Ending {
        loop {
            if let Some(ending) = self.ending {
                self.apps.iter().for_each(App::kill);
                return ending;
            }
            for (source, events) in self.wait() {
                self.answer(source, events);
            }
            self.settle();
        }
    }

    /// Waits for something to happen.
    fn wait(&self) -> Events {
        let (control, events) = self.control.poll();
        let mut sources = vec![Source::Control, Source::Deaths];
        let mut waits = vec![
            PollFd::new(control, events),
            PollFd::new(self.deaths.as_fd(), PollFlags::POLLIN),
        ];
        for (index, app) in self.apps.iter().enumerate() {
            for (part, descriptor, events) in app.poll() {
                sources.push(Source::App(index, part));
                waits.push(PollFd::new(descriptor, events));
            }
        }
        // It fails only where memory is short; the next turn asks again.
        let _ = poll(&mut waits, PollTimeout::NONE);
        let events = sources.into_iter().zip(waits.iter().map(PollFd::revents));
        events
            .filter(|(_, events)| *events != Some(PollFlags::empty()))
            .collect()
    }

    fn answer(&mut self, source: Source, events: Option<PollFlags>) {
        match source {
            Source::Control => self.hear_host(),
            Source::Deaths => self.bury(),
            Source::App(index, part) => {
                let message = self.apps[index].event(part, events);
                self.tell(message);
            }
        }
    }

    fn hear_host(&mut self) {
        match self.control.receive() {
            Ok(messages) => messages.into_iter().for_each(|message| self.obey(message)),
            Err(error) => self.lose_host(&error),
        }
    }

    fn obey(&mut self, message: ToGuest) {
        match message {
            ToGuest::Start(app) => self.start(&app),
            ToGuest::Signal { app, signal } => self.named(&app).for_each(|app| app.signal(signal)),
            ToGuest::Resize { app, window } => self.named(&app).for_each(|app| app.resize(window)),
            ToGuest::PowerOff => self.ending = Some(Ending::PoweredOff),
            ToGuest::Boot(_) => console::say("the host boots a machine that runs"),
        }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &App> {
        self.apps.iter().filter(move |app| app.is_named(name))
    }

    fn start(&mut self, app: &protocol::App) {
        match self.try_start(app) {
            Ok(app) => self.apps.push(app),
            Err(error) => {
                let Fault { code, reason } = error.into();
                self.tell(Some(ToHost::NotStarted {
                    app: app.name.clone(),
                    code,
                    reason,
                }));
            }
        }
    }

    fn try_start(&mut self, app: &protocol::App) -> Result<App> {
        anyhow::ensure!(
            self.named(&app.name).next().is_none(),
            "app {:?} runs already",
            app.name
        );
        self.pod.ensure()?;
        App::start(app)
    }

    /// Reaps all children that have died, whatever number of signals that was.
    fn bury(&mut self) {
        while let Ok(Some(_)) = self.deaths.read_signal() {}
        while let Some((pid, status)) = process::next_dead() {
            self.pod.died(pid);
            let dead = self.apps.iter_mut().find(|app| app.is_process(pid));
            let message = dead.and_then(|app| app.died(status));
            self.tell(message);
        }
    }

    /// Tells the host what has come to an end, and forgets what is over.
    fn settle(&mut self) {
        for index in 0..self.apps.len() {
            let message = self.apps[index].settle();
            self.tell(message);
        }
        self.apps.retain(|app| !app.is_over());
        if let Err(error) = self.control.flush() {
            self.lose_host(&error);
        }
    }

    fn tell(&mut self, message: Option<ToHost>) {
        let Some(message) = message else { return };
        if self.debug {
            console::say(&format!("{message:?}"));
        }
        if let Err(error) = self.control.queue(&message) {
            console::say(&format!("{error:#}"));
        }
    }

    fn lose_host(&mut self, error: &anyhow::Error) {
        if self.ending.is_none() {
            console::say(&format!("{error:#}"));
            self.ending = Some(Ending::HostGone);
        }
    }
}

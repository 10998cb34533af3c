//! The supervision loop: one poll over the control stream, dying children and all pumps. Nothing in it returns early or
//! waits for anything else; nothing wakes it without a reason.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use guest_init::protocol::{TaskId, ToGuest, ToHost};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::console;
use crate::control::Control;
use crate::fault::Fault;
use crate::machine;
use crate::pod_namespace::PodNamespace;
use crate::process;
use crate::task::{Part, Task};

/// The app whose files `message` is about.
fn subject(message: &ToGuest) -> Option<&str> {
    match message {
        ToGuest::Start { app, .. } => Some(&app.name),
        ToGuest::Remove { left, .. } => Some(&left.app),
        _ => None,
    }
}

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
    tasks: Vec<Task>,
    /// `Start` and `Remove` of apps whose last files are still being let go of.
    waiting: Vec<ToGuest>,
    ending: Option<Ending>,
    debug: bool,
}

/// What an event was on.
#[derive(Clone, Copy)]
enum Source {
    Control,
    Deaths,
    Task(usize, Part),
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
            tasks: Vec::new(),
            waiting: Vec::new(),
            ending: None,
            debug,
        })
    }

    /// Runs until the machine is to end.
    pub fn run(mut self) -> Ending {
        loop {
            if let Some(ending) = self.ending {
                self.tasks.iter().for_each(Task::kill);
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
        for (index, task) in self.tasks.iter().enumerate() {
            for (part, descriptor, events) in task.poll() {
                sources.push(Source::Task(index, part));
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
            Source::Task(index, part) => {
                let message = self.tasks[index].event(part, events);
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
        if subject(&message).is_some_and(|app| self.holds(app)) {
            self.waiting.push(message);
            return;
        }
        match message {
            ToGuest::Start { task, app } => self.begin(task, |pod| Task::start(task, *app, pod)),
            ToGuest::Enter { task, entry } => {
                let place = self.tasks.iter().find_map(|task| task.place(&entry.app));
                let place = place.with_context(|| format!("app {:?} does not run", entry.app));
                self.begin(task, |_| Task::enter(task, entry, place?));
            }
            // Out of the apps' reach.
            ToGuest::Remove { task, left } => {
                self.begin(task, |pod| pod.beside(|| Task::remove(task, left))?);
            }
            ToGuest::Signal { task, signal } => {
                self.numbered(task).for_each(|task| task.signal(signal));
            }
            ToGuest::Resize { task, window } => {
                self.numbered(task).for_each(|task| task.resize(window));
            }
            ToGuest::Cpus(cpus) => {
                if let Err(error) = machine::set_cpus(cpus) {
                    console::say(&format!("{error:#}"));
                }
            }
            ToGuest::PowerOff => self.ending = Some(Ending::PoweredOff),
            ToGuest::Boot(_) => console::say("the host boots a machine that runs"),
        }
    }

    fn numbered(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(move |task| task.is(id))
    }

    /// Whether anything that has not ended holds files of the app `name`.
    fn holds(&self, name: &str) -> bool {
        self.tasks.iter().any(|task| task.is_of(name))
    }

    /// Nobody waits for what commands in an app have still to say that is started anew or removed.
    fn hasten(&mut self) {
        let apps: Vec<_> = self.waiting.iter().filter_map(subject).collect();
        for task in &mut self.tasks {
            if apps.iter().any(|app| task.is_of(app)) {
                task.hasten();
            }
        }
    }

    /// Begins a task in the pod's namespace, or tells why there is none.
    fn begin(&mut self, id: TaskId, begin: impl FnOnce(&mut PodNamespace) -> Result<Task>) {
        let begun = self.pod.ensure().and_then(|()| begin(&mut self.pod));
        match begun {
            Ok(task) => self.tasks.push(task),
            Err(error) => self.tell(Some(Fault::from(error).of_task(id))),
        }
    }

    /// Reaps all children that have died, whatever number of signals that was.
    fn bury(&mut self) {
        while let Ok(Some(_)) = self.deaths.read_signal() {}
        while let Some((pid, status)) = process::next_dead() {
            self.pod.died(pid);
            let mut dead = self.tasks.iter_mut();
            let dead = dead.find(|task| task.is_process(pid));
            let message = dead.and_then(|task| task.died(pid, status));
            self.tell(message);
        }
    }

    /// Tells the host what has come to an end, and forgets what is over.
    fn settle(&mut self) {
        self.hasten();
        for index in 0..self.tasks.len() {
            let message = self.tasks[index].settle();
            self.tell(message);
        }
        self.tasks.retain(|task| !task.is_over());
        for message in std::mem::take(&mut self.waiting) {
            self.obey(message);
        }
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

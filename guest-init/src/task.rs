//! What runs at the host's word, as PID 1 sees it: an app with its handlers, a command entered into one, or the removal of
//! what one left; its streams, and what the host is to be told next.
//!
//! Owned by `Supervisor`. An app's life: its place is furnished, its pre-start handler runs, it runs itself, its post-stop
//! handler runs; then what was written is drained, and it is gone. An entry has a place already and no handlers.

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use guest_init::packets::{self, Received};
use guest_init::protocol::{App, Entry, Left, Status, TaskId, ToHost, Window};
use nix::poll::PollFlags;
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::fault::{Fault, OTHER};
use crate::launch::Program;
use crate::place::{Place, Room};
use crate::pod_namespace::PodNamespace;
use crate::removal::remove;
use crate::report::{self, Report};
use crate::streams::{Streams, Way};
use crate::syslog::Syslog;
use crate::{console, furnish, process};

/// An app, an entry or a removal.
pub struct Task {
    id: TaskId,
    role: Role,
    streams: Streams,
    /// An app's, while somebody reads it.
    syslog: Option<Syslog>,
    life: Life,
}

enum Role {
    App(Rc<Place>),
    Entry(Box<Entry>, Rc<Place>),
    /// What an app left is being removed.
    Removal(Left),
    /// What has ended, and holds nothing any more.
    Over,
}

enum Life {
    /// A process of it lives, whose launch is reported on until its own program runs.
    Alive {
        step: Step,
        pid: Pid,
        launching: Option<OwnedFd>,
    },
    /// Only its output is still under way; then the host is told how it has ended.
    Draining(ToHost),
    Gone,
}

/// What the living process is for.
#[derive(Clone, Debug)]
enum Step {
    Furnish,
    PreStart,
    Main,
    /// It has ended in this way already.
    PostStop(ToHost),
}

/// What an event was on.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The line of a launch.
    Launch,
    /// A descriptor of its streams.
    Stream(Way),
}

impl Task {
    /// Connects the streams of `app` and begins its life.
    ///
    /// # Errors
    /// Whatever goes wrong before a process is there.
    pub fn start(id: TaskId, app: App, pod: &mut PodNamespace) -> Result<Self> {
        ensure!(is_name(&app.name), "{:?} is no name for an app", app.name);
        let streams = Streams::connect(&app.stdio)?;
        let syslog = match app.built_in {
            true => None,
            false => Some(pod.beside(|| Syslog::start(&streams.theirs))??),
        };
        let place = Place {
            cgroup: Cgroup::make(&app)?,
            app,
            room: OnceCell::new(),
        };
        let task = Self::new(id, Role::App(Rc::new(place)), streams);
        Self { syslog, ..task }.begin(Step::Furnish)
    }

    /// Connects the streams of `entry` and starts it in `place`.
    ///
    /// # Errors
    /// Whatever goes wrong before its process is there.
    pub fn enter(id: TaskId, entry: Box<Entry>, place: Rc<Place>) -> Result<Self> {
        let streams = Streams::connect(&entry.stdio)?;
        Self::new(id, Role::Entry(entry, place), streams).begin(Step::Main)
    }

    /// Begins to remove what an app left behind.
    ///
    /// # Errors
    /// Whatever goes wrong before a process is there.
    pub fn remove(id: TaskId, left: Left) -> Result<Self> {
        ensure!(is_name(&left.app), "{:?} is no name of an app", left.app);
        Self::new(id, Role::Removal(left), Streams::none()).begin(Step::Main)
    }

    fn new(id: TaskId, role: Role, streams: Streams) -> Self {
        Self {
            id,
            role,
            streams,
            syslog: None,
            life: Life::Gone,
        }
    }

    fn begin(mut self, first: Step) -> Result<Self> {
        self.launch(first)?;
        Ok(self)
    }

    /// Whether it is the task `id`, and has not ended.
    pub fn is(&self, id: TaskId) -> bool {
        self.id == id && !matches!(self.life, Life::Gone)
    }

    /// Whether it holds, or is removing, files of the app `name`.
    pub fn is_of(&self, name: &str) -> bool {
        let app = match &self.role {
            Role::App(place) | Role::Entry(_, place) => &place.app.name,
            Role::Removal(left) => &left.app,
            Role::Over => return false,
        };
        app == name
    }

    /// Where commands can enter it as the app `name`: between its first instruction and its last.
    pub fn place(&self, name: &str) -> Option<Rc<Place>> {
        match (&self.role, &self.life) {
            (
                Role::App(place),
                Life::Alive {
                    step, launching, ..
                },
            ) if place.app.name == name && matches!((step, launching), (Step::Main, None)) => {
                Some(Rc::clone(place))
            }
            _ => None,
        }
    }

    /// Whether its living process, or who reads its log, is `pid`.
    pub fn is_process(&self, pid: Pid) -> bool {
        matches!(self.life, Life::Alive { pid: own, .. } if own == pid) || self.is_read_by(pid)
    }

    fn is_read_by(&self, pid: Pid) -> bool {
        let syslog = self.syslog.as_ref();
        syslog.is_some_and(|syslog| syslog.is_read_by(pid))
    }

    /// Whether nothing is left of it.
    pub fn is_over(&self) -> bool {
        matches!(self.life, Life::Gone) && self.streams.are_closed()
    }

    /// Sends a signal to its living process.
    pub fn signal(&self, signal: i32) {
        if let Life::Alive { pid, .. } = self.life {
            // The kernel knows the numbers; one that it refuses has no effect.
            let _ = process::kill(pid, signal);
        }
    }

    /// Kills all processes of an app; an entry's die with its app's.
    pub fn kill(&self) {
        if let Role::App(place) = &self.role {
            place.cgroup.kill();
        }
    }

    /// Gives its terminal, if it has one, a new size.
    pub fn resize(&self, window: Window) {
        self.streams.resize(window);
    }

    /// What to wait for.
    pub fn poll(&self) -> impl Iterator<Item = (Part, BorrowedFd<'_>, PollFlags)> {
        let line = match &self.life {
            Life::Alive { launching, .. } => launching.as_ref(),
            _ => None,
        };
        let line = line.map(|line| (Part::Launch, line.as_fd(), PollFlags::POLLIN));
        let streams = self.streams.poll();
        let streams = streams.map(|(way, end, events)| (Part::Stream(way), end, events));
        streams.chain(line)
    }

    /// Answers an event; gives what the host is to be told.
    pub fn event(&mut self, part: Part, events: Option<PollFlags>) -> Option<ToHost> {
        match part {
            Part::Launch => self.hear_of_launch(),
            Part::Stream(way) => {
                self.streams.event(way, events);
                None
            }
        }
    }

    /// Hears the line of the launch out.
    fn hear_of_launch(&mut self) -> Option<ToHost> {
        while let Life::Alive {
            step, launching, ..
        } = &mut self.life
            && let Some(line) = launching
        {
            match packets::receive(line.as_fd()).context("read the report of a launch") {
                Ok(Received::Nothing) => return None,
                Ok(Received::Message(report, beside)) => self.hear(report, beside),
                Err(error) => self.fail(error.into()),
                Ok(Received::End) => {
                    *launching = None;
                    match step {
                        Step::Main => return Some(ToHost::Started { task: self.id }),
                        Step::Furnish => {
                            self.fail(Fault::new(OTHER, "ended while its root was being made"));
                        }
                        Step::PreStart | Step::PostStop(_) => {}
                    }
                }
            }
        }
        None
    }

    fn hear(&mut self, report: Report, beside: Vec<OwnedFd>) {
        let mut files = beside.into_iter().map(File::from);
        match (report, files.next(), files.next()) {
            (Report::Terminal, Some(master), _) => self.streams.take_terminal(master),
            (Report::Furnished(account), Some(mounts), Some(cgroups)) => self.move_in(Room {
                mounts,
                cgroups,
                account,
            }),
            (Report::Failed(fault), ..) => self.fail(fault),
            _ => self.fail(Fault::new(OTHER, "no descriptors came with a report")),
        }
    }

    /// The place is ready: what comes first is launched in it.
    fn move_in(&mut self, room: Room) {
        let Role::App(place) = &self.role else {
            return;
        };
        let first = match place.app.pre_start.is_empty() {
            true => Step::Main,
            false => Step::PreStart,
        };
        let _ = place.room.set(room);
        self.advance(first);
    }

    fn fail(&mut self, fault: Fault) {
        let Life::Alive { step, .. } = &self.life else {
            return;
        };
        match step.clone() {
            Step::Furnish | Step::Main => self.finish(fault.of_task(self.id)),
            Step::PreStart => self.finish(fault.within("pre-start handler").of_task(self.id)),
            Step::PostStop(outcome) => {
                let Fault { reason, .. } = fault;
                console::say(&format!("post-stop handler: {reason}"));
                self.drain(outcome);
            }
        }
    }

    fn advance(&mut self, step: Step) {
        if let Err(error) = self.launch(step) {
            self.finish(Fault::from(error).of_task(self.id));
        }
    }

    /// Starts the process of `step`.
    fn launch(&mut self, step: Step) -> Result<()> {
        let (pid, line) = report::start(|line| self.work(&step, line))?;
        match (&self.role, &step) {
            (_, Step::Furnish | Step::PreStart) => {}
            (Role::App(place), Step::Main) if !place.app.post_stop.is_empty() => {
                self.streams.give_input_away();
            }
            _ => self.streams.give_away(),
        }
        self.life = Life::Alive {
            step,
            pid,
            launching: Some(line),
        };
        Ok(())
    }

    /// What the process of `step` does.
    fn work(&self, step: &Step, line: &OwnedFd) -> Result<(), Fault> {
        let program = match (&self.role, step) {
            (Role::Over, _) => return Ok(()),
            (Role::Removal(left), _) => return Ok(remove(left)?),
            (Role::App(place), Step::Furnish) => {
                let syslog = self.syslog.as_ref();
                return Ok(furnish::run(&place.app, &place.cgroup, syslog, line)?);
            }
            (Role::App(place), Step::PreStart) => Program::of_handler(place, &place.app.pre_start),
            (Role::App(place), Step::Main) => Program::of_app(place),
            (Role::App(place), Step::PostStop(_)) => {
                Program::of_handler(place, &place.app.post_stop)
            }
            (Role::Entry(entry, place), _) => Program::of_entry(entry, place),
        };
        program.launch(&self.streams.theirs, line)
    }

    /// A process of it has died. Gives what came before.
    pub fn died(&mut self, dead: Pid, status: Status) -> Option<ToHost> {
        if self.is_read_by(dead) {
            self.syslog = None;
            self.take_last_words();
            return None;
        }
        let before = self.hear_of_launch();
        let Life::Alive { step, pid, .. } = &self.life else {
            return before;
        };
        // What was heard may have been its last word, and the next one lives.
        if *pid != dead {
            return before;
        }
        match step.clone() {
            Step::Furnish => self.fail(Fault::new(OTHER, "killed while its root was being made")),
            Step::PreStart if status == Status::Code(0) => {
                // What it left behind does not outlive it.
                self.kill();
                self.advance(Step::Main);
            }
            Step::PreStart => {
                self.finish(Fault::of_handler("pre-start", status).of_task(self.id));
            }
            Step::Main => {
                let memory_exceeded =
                    matches!(&self.role, Role::App(place) if place.cgroup.memory_exceeded());
                self.finish(ToHost::Exited {
                    task: self.id,
                    status,
                    memory_exceeded,
                });
            }
            Step::PostStop(outcome) => self.drain(outcome),
        }
        before
    }

    /// The rest of it is killed, and its last handler runs.
    fn finish(&mut self, outcome: ToHost) {
        if let Role::App(place) = &self.role
            && place.room.get().is_some()
            && !place.app.post_stop.is_empty()
        {
            self.kill();
            self.streams.end_input();
            match self.launch(Step::PostStop(outcome.clone())) {
                Ok(()) => return,
                Err(error) => console::say(&format!("post-stop handler: {error:#}")),
            }
        }
        self.drain(outcome);
    }

    /// The rest of it is killed, and what was written is taken along.
    fn drain(&mut self, outcome: ToHost) {
        self.kill();
        self.streams.end_input();
        self.life = Life::Draining(outcome);
        self.syslog.iter().for_each(Syslog::end);
        self.take_last_words();
    }

    /// Takes what was written along once nobody writes any more.
    fn take_last_words(&mut self) {
        if matches!(self.life, Life::Draining(_)) && self.syslog.is_none() {
            self.streams.take_last_words();
        }
    }

    /// Sees to the end of what an app has left that has ended: a command in it that was born while the app died, or what one has not
    /// handed on yet.
    pub fn hasten(&mut self) {
        match (&self.role, &self.life) {
            (Role::Entry(_, place), Life::Alive { .. }) => place.cgroup.kill(),
            (_, Life::Draining(_)) => {
                self.streams = Streams::none();
                self.syslog.iter().for_each(Syslog::kill);
            }
            _ => {}
        }
    }

    /// Tells of the end once every byte has been handed on.
    pub fn settle(&mut self) -> Option<ToHost> {
        self.streams.settle();
        let Life::Draining(outcome) = &self.life else {
            return None;
        };
        if self.syslog.is_some() || !self.streams.are_delivered() {
            return None;
        }
        let message = outcome.clone();
        self.life = Life::Gone;
        if let Role::App(place) = &self.role {
            // One that is not empty yet serves an app of the same name.
            let _ = place.cgroup.remove();
        }
        self.role = Role::Over;
        Some(message)
    }
}

/// An ACName, which is safe as a name of folders.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 255 && name.split('-').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_name_only_for_acnames() {
        assert!(is_name("web") && is_name("web-1") && is_name("0"));
        assert!(
            ["", "..", "a/b", "a--b", "-a", "a-", "A", "cgroup.procs"]
                .into_iter()
                .all(|name| !is_name(name))
        );
    }
}

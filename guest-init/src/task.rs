//! What runs at the host's word, as PID 1 sees it: an app with its handlers, a command entered into one, or the removal of
//! what one left; its streams, and what the host is to be told next.
//!
//! Owned by `Supervisor`. An app's life: its place is furnished, its pre-start handler runs, it runs itself, its post-stop
//! handler runs; then what was written is drained, and it is gone. An entry has a place already and no handlers.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use guest_init::protocol::{self, Entry, Status, TaskId, ToHost, Window};
use nix::poll::PollFlags;
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::fault::{Fault, OTHER};
use crate::launch::{Launch, Program};
use crate::place::{Place, Room};
use crate::removal::Left;
use crate::report::{self, Report, Reports};
use crate::streams::{Streams, Way};
use crate::{console, furnish, process};

/// An app, an entry or a removal.
pub struct Task {
    id: TaskId,
    role: Role,
    streams: Streams,
    life: Life,
}

enum Role {
    App {
        app: Rc<protocol::App>,
        cgroup: Rc<Cgroup>,
        /// Once it is furnished.
        place: Option<Rc<Place>>,
    },
    Entry {
        entry: Box<Entry>,
        place: Rc<Place>,
    },
    /// What an app left is being removed.
    Removal {
        app: String,
    },
    /// What has ended, and holds nothing any more.
    Over,
}

enum Life {
    /// A process of it lives, whose launch is reported on until its own program runs.
    Alive {
        step: Step,
        pid: Pid,
        launching: Option<Reports>,
    },
    /// Only its output is still under way.
    Draining(Outcome),
    Gone,
}

/// What the living process is for.
#[derive(Clone, Debug)]
enum Step {
    Furnish,
    PreStart,
    Main,
    PostStop(Outcome),
}

/// How a task has ended.
#[derive(Clone, Debug)]
enum Outcome {
    NotStarted(Fault),
    Exited {
        status: Status,
        memory_exceeded: bool,
    },
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
    pub fn start(id: TaskId, app: protocol::App) -> Result<Self> {
        ensure!(is_name(&app.name), "{:?} is no name for an app", app.name);
        let streams = Streams::connect(&app.stdio)?;
        let cgroup = Cgroup::make(&app)?;
        let (reports, reporter) = report::line()?;
        let Some(pid) = process::split().context("start a process")? else {
            furnish::run(&app, &cgroup, &reporter)
        };
        Ok(Self {
            id,
            role: Role::App {
                app: Rc::new(app),
                cgroup: Rc::new(cgroup),
                place: None,
            },
            streams,
            life: Life::Alive {
                step: Step::Furnish,
                pid,
                launching: Some(reports),
            },
        })
    }

    /// Connects the streams of `entry` and starts it in `place`.
    ///
    /// # Errors
    /// Whatever goes wrong before its process is there.
    pub fn enter(id: TaskId, entry: Box<Entry>, place: Rc<Place>) -> Result<Self> {
        let streams = Streams::connect(&entry.stdio)?;
        let mut task = Self {
            id,
            role: Role::Entry { entry, place },
            streams,
            life: Life::Gone,
        };
        task.launch(Step::Main)?;
        Ok(task)
    }

    /// Begins to remove what an app left behind.
    ///
    /// # Errors
    /// Whatever goes wrong before a process is there.
    pub fn remove(id: TaskId, left: Left) -> Result<Self> {
        ensure!(is_name(&left.app), "{:?} is no name of an app", left.app);
        let (reports, reporter) = report::line()?;
        let Some(pid) = process::split().context("start a process")? else {
            left.remove(&reporter)
        };
        Ok(Self {
            id,
            role: Role::Removal { app: left.app },
            streams: Streams::none(),
            life: Life::Alive {
                step: Step::Main,
                pid,
                launching: Some(reports),
            },
        })
    }

    /// Whether it is the task `id`, and has not ended.
    pub fn is(&self, id: TaskId) -> bool {
        self.id == id && !matches!(self.life, Life::Gone)
    }

    /// Whether it is the app `name`, and has not ended.
    pub fn is_app(&self, name: &str) -> bool {
        matches!(&self.role, Role::App { app, .. } if app.name == name)
    }

    /// Whether it holds, or is removing, files of the app `name`.
    pub fn is_of(&self, name: &str) -> bool {
        let app = match &self.role {
            Role::App { app, .. } => &app.name,
            Role::Entry { place, .. } => &place.app.name,
            Role::Removal { app } => app,
            Role::Over => return false,
        };
        app == name
    }

    /// Where commands can enter it: an app between its first instruction and its last.
    pub fn place(&self) -> Option<Rc<Place>> {
        match (&self.role, &self.life) {
            (
                Role::App { place, .. },
                Life::Alive {
                    step: Step::Main,
                    launching: None,
                    ..
                },
            ) => place.clone(),
            _ => None,
        }
    }

    /// Whether its living process is `pid`.
    pub fn is_process(&self, pid: Pid) -> bool {
        matches!(self.life, Life::Alive { pid: own, .. } if own == pid)
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
        if let Role::App { cgroup, .. } = &self.role {
            cgroup.kill();
        }
    }

    /// Gives its terminal, if it has one, a new size.
    pub fn resize(&self, window: Window) {
        self.streams.resize(window);
    }

    /// What to wait for.
    pub fn poll(&self) -> Vec<(Part, BorrowedFd<'_>, PollFlags)> {
        let streams = self.streams.poll().into_iter();
        let mut waits: Vec<_> = streams
            .map(|(way, descriptor, events)| (Part::Stream(way), descriptor, events))
            .collect();
        if let Life::Alive {
            launching: Some(reports),
            ..
        } = &self.life
        {
            waits.push((Part::Launch, reports.as_fd(), PollFlags::POLLIN));
        }
        waits
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
        loop {
            let Life::Alive {
                launching: Some(reports),
                ..
            } = &self.life
            else {
                return None;
            };
            match reports.next() {
                Report::Nothing => return None,
                Report::Terminal(master) => self.streams.take_terminal(master),
                Report::Furnished(room) => self.move_in(room),
                Report::Failed(fault) => self.fail(fault),
                Report::Started => {
                    if let Some(message) = self.begin() {
                        return Some(message);
                    }
                }
            }
        }
    }

    /// The place is ready: what comes first is launched in it.
    fn move_in(&mut self, room: Room) {
        let Role::App { app, cgroup, place } = &mut self.role else {
            return;
        };
        *place = Some(Rc::new(Place {
            app: Rc::clone(app),
            cgroup: Rc::clone(cgroup),
            room,
        }));
        let first = match app.pre_start.is_empty() {
            true => Step::Main,
            false => Step::PreStart,
        };
        self.advance(first);
    }

    /// The process's own program runs.
    fn begin(&mut self) -> Option<ToHost> {
        let Life::Alive {
            step, launching, ..
        } = &mut self.life
        else {
            return None;
        };
        *launching = None;
        match step {
            Step::Main => Some(ToHost::Started { task: self.id }),
            Step::Furnish => {
                self.fail(Fault::new(OTHER, "ended while its root was being made"));
                None
            }
            Step::PreStart | Step::PostStop(_) => None,
        }
    }

    fn fail(&mut self, fault: Fault) {
        let Life::Alive { step, .. } = &self.life else {
            return;
        };
        match step.clone() {
            Step::Furnish | Step::Main => self.finish(Outcome::NotStarted(fault)),
            Step::PreStart => self.finish(Outcome::NotStarted(fault.within("pre-start handler"))),
            Step::PostStop(outcome) => {
                let Fault { reason, .. } = fault;
                console::say(&format!("post-stop handler: {reason}"));
                self.drain(outcome);
            }
        }
    }

    fn advance(&mut self, step: Step) {
        if let Err(error) = self.launch(step) {
            self.finish(Outcome::NotStarted(error.into()));
        }
    }

    /// Starts the process of `step`.
    fn launch(&mut self, step: Step) -> Result<()> {
        let (reports, reporter) = report::line()?;
        let (place, program) = match (&self.role, &step) {
            (Role::Removal { .. } | Role::Over, _) => bail!("a removal runs no program"),
            (Role::Entry { entry, place }, _) => (place, Program::of_entry(entry, &place.app)),
            (Role::App { app, place, .. }, step) => {
                let place = place.as_ref().context("its root is not made yet")?;
                let program = match step {
                    Step::PreStart => Program::of_handler(app, &app.pre_start),
                    Step::PostStop(_) => Program::of_handler(app, &app.post_stop),
                    Step::Furnish | Step::Main => Program::of_app(app),
                };
                (place, program)
            }
        };
        let launch = Launch {
            place,
            program,
            stdio: self.streams.theirs(),
            reporter: &reporter,
        };
        let Some(pid) = process::split().context("start a process")? else {
            launch.run()
        };
        match (&self.role, &step) {
            (_, Step::PreStart) => {}
            (Role::App { app, .. }, Step::Main) if !app.post_stop.is_empty() => {
                self.streams.give_input_away();
            }
            _ => self.streams.give_away(),
        }
        self.life = Life::Alive {
            step,
            pid,
            launching: Some(reports),
        };
        Ok(())
    }

    /// Its living process has died. Gives what came before.
    pub fn died(&mut self, dead: Pid, status: Status) -> Option<ToHost> {
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
                self.finish(Outcome::NotStarted(Fault::of_handler("pre-start", status)));
            }
            Step::Main => {
                let memory_exceeded = match &self.role {
                    Role::App { cgroup, .. } => cgroup.memory_exceeded(),
                    Role::Entry { .. } | Role::Removal { .. } | Role::Over => false,
                };
                self.finish(Outcome::Exited {
                    status,
                    memory_exceeded,
                });
            }
            Step::PostStop(outcome) => self.drain(outcome),
        }
        before
    }

    /// The rest of it is killed, and its last handler runs.
    fn finish(&mut self, outcome: Outcome) {
        if let Role::App {
            app,
            place: Some(_),
            ..
        } = &self.role
            && !app.post_stop.is_empty()
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
    fn drain(&mut self, outcome: Outcome) {
        self.kill();
        self.streams.take_last_words();
        self.life = Life::Draining(outcome);
    }

    /// Sees to the end of what an app has left that has ended: a command in it that was born while the app died, or what one has not
    /// handed on yet.
    pub fn hasten(&mut self) {
        match (&self.role, &self.life) {
            (Role::Entry { place, .. }, Life::Alive { .. }) => place.cgroup.kill(),
            (_, Life::Draining(_)) => self.streams = Streams::none(),
            _ => {}
        }
    }

    /// Tells of the end once every byte has been handed on.
    pub fn settle(&mut self) -> Option<ToHost> {
        self.streams.settle();
        let Life::Draining(outcome) = &self.life else {
            return None;
        };
        if !self.streams.are_delivered() {
            return None;
        }
        let message = match outcome.clone() {
            Outcome::NotStarted(Fault { code, reason }) => ToHost::NotStarted {
                task: self.id,
                code,
                reason,
            },
            Outcome::Exited {
                status,
                memory_exceeded,
            } => ToHost::Exited {
                task: self.id,
                status,
                memory_exceeded,
            },
        };
        self.life = Life::Gone;
        if let Role::App { cgroup, .. } = &self.role {
            // One that is not empty yet serves an app of the same name.
            let _ = cgroup.remove();
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

//! The life of a pod as a pure state machine: what the guest, the user and the clock do goes in, what is to be done
//! about it comes out. The session carries the actions out.

use std::time::Duration;

use guest_init::protocol::{self, App, Boot, Status, TaskId, ToGuest, ToHost, Window};
use nix::sys::signal::Signal;

use crate::clients::Answer;
use crate::life::changes::Removals;
use crate::life::entries::Entries;
use crate::life::member::{Member, Standing};

mod changes;
mod entries;
mod member;

pub use changes::FIXED;

/// Exit code of fairing's own failures.
pub const FAILED: u8 = 254;

/// How long a machine whose end is due may take, and, where nobody says otherwise, apps that have been told to end.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long a machine may take to bring its scratch disk in order and end.
const POWER_OFF_GRACE: Duration = Duration::from_secs(60);

/// No task has this number or a higher one: each has ports of its own.
const LAST: TaskId = 1 << 24;

/// What no task is: who waits for the machine's new size waits for it.
pub const SIZE: TaskId = TaskId::MAX;

/// Exit code of a pod whose time was up.
pub const TIMED_OUT: u8 = 124;

/// What the session must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message to the guest.
    Send(ToGuest),
    /// The apps run: tell stage 0.
    Ready,
    /// Record an app's exit code.
    Record(String, u8),
    /// Tell the user.
    Tell(String),
    /// Tell who entered a command.
    Answer(TaskId, Answer),
    /// Close streams that the guest never dialled: the task has ended, and nothing more will come.
    Close(TaskId),
    /// Nothing in the machine needs these any more.
    Forget {
        /// An image, by its number.
        image: Option<u8>,
        /// Shares, by their numbers.
        shares: Vec<u16>,
    },
    /// End the machine now; there is nothing to wait for.
    Kill,
    /// When this time is over, say so; whatever time was started before no longer counts.
    StartGrace(Duration),
}

enum Phase {
    /// Waiting for guest-init's first message.
    Booting(Box<Boot>),
    /// The machine is the pod's, and has been sent its apps.
    Up,
    /// The machine has been told to end.
    Ending,
}

/// Where a pod stands.
pub struct Life {
    phase: Phase,
    /// Whether apps come and go while the pod lives: then it ends only when it is told to, and no app's code is its own.
    mutable: bool,
    /// The pod's apps; of those that it begins with, app `n` is task `n`.
    apps: Vec<Member>,
    entries: Entries,
    removals: Removals,
    /// The number of the next task.
    next: TaskId,
    stop_grace: Duration,
    /// Code of the first app that failed.
    failing: Option<u8>,
    /// A code that stands above the apps' own.
    overriding: Option<u8>,
    /// The apps that live have been told to end.
    stopping: bool,
    /// They have been killed.
    killed: bool,
    interrupts: u32,
}

/// How a pod is asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// The signal for each app, in the apps' order.
    pub signals: Vec<i32>,
    /// How long they then have.
    pub grace: Duration,
}

impl Life {
    /// A pod whose machine is about to boot.
    pub fn new(boot: Boot, apps: Vec<App>, stopping: Stopping, mutable: bool) -> Self {
        let signals = stopping.signals.into_iter();
        let signals = signals.chain(std::iter::repeat(Signal::SIGTERM as i32));
        let next = TaskId::try_from(apps.len()).unwrap_or(LAST);
        let numbered = apps.into_iter().zip(0..).zip(signals);
        let members = numbered.map(|((app, task), stop_signal)| Member {
            app,
            stop_signal,
            task,
            standing: Standing::Starting,
        });
        Self {
            apps: members.collect(),
            entries: Entries::new(),
            removals: Removals::new(),
            next,
            mutable,
            phase: Phase::Booting(Box::new(boot)),
            stop_grace: stopping.grace,
            failing: None,
            overriding: None,
            stopping: false,
            killed: false,
            interrupts: 0,
        }
    }

    /// The pod's exit code if the machine has ended in order or on demand; `None` = it ended by itself.
    pub fn exit_code(&self) -> Option<u8> {
        self.overriding.or(match self.phase {
            Phase::Ending => Some(self.failing.unwrap_or(0)),
            _ => None,
        })
    }

    /// The guest said something.
    pub fn on_message(&mut self, message: ToHost) -> Vec<Action> {
        let name = message_name(&message);
        let answered = match message {
            ToHost::Hello { version } => self.greet(version),
            ToHost::Failed { reason } => Some(self.hear_failure(&reason)),
            ToHost::Started { task } if self.is_app(task) => self.started(task),
            ToHost::NotStarted { task, code, reason } if self.is_app(task) => {
                self.not_started(task, code, &reason)
            }
            ToHost::Exited {
                task,
                status,
                memory_exceeded,
            } if self.is_app(task) => self.exited(task, status, memory_exceeded),
            ToHost::Started { task } if self.is_removal(task) => Some(vec![]),
            ToHost::NotStarted { task, reason, .. } if self.is_removal(task) => {
                self.not_removed(task, &reason)
            }
            ToHost::Exited { task, status, .. } if self.is_removal(task) => {
                self.removed(task, status)
            }
            ToHost::Started { task } => self.entry_started(task),
            ToHost::NotStarted { task, code, reason } => {
                let reason = printable(&reason);
                let answer = Answer::NotStarted { code, reason };
                self.entry_ended(task, answer)
            }
            ToHost::Exited { task, status, .. } => {
                let code = exit_code(status);
                self.entry_ended(task, Answer::Exited { code })
            }
        };
        answered.unwrap_or_else(|| self.fail(&format!("the guest sent {name} out of turn")))
    }

    /// Every output of app `task` has been written out.
    pub fn on_drained(&mut self, task: TaskId) -> Vec<Action> {
        let Some(app) = self.apps.iter_mut().find(|app| app.task == task) else {
            return vec![];
        };
        let mut actions = app.settle();
        let all_idle = self.apps.iter().all(|app| app.standing == Standing::Idle);
        if !actions.is_empty() && all_idle && (self.stopping || !self.mutable) {
            actions.extend(self.power_off());
        }
        actions
    }

    fn power_off(&mut self) -> [Action; 2] {
        self.phase = Phase::Ending;
        [
            Action::Send(ToGuest::PowerOff),
            Action::StartGrace(POWER_OFF_GRACE),
        ]
    }

    /// A signal came for the pod's process.
    pub fn on_signal(&mut self, signal: Signal) -> Vec<Action> {
        self.interrupts += u32::from(signal == Signal::SIGINT);
        let asks_to_end = !matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2);
        match self.phase {
            // Its apps are others' affair: whoever signals the pod means the pod.
            Phase::Up if self.mutable && asks_to_end && self.interrupts < 2 => self.on_stop(),
            Phase::Up if self.apps.iter().any(Member::is_running) && self.interrupts < 2 => {
                self.signal_apps(|_| signal as i32)
            }
            // Only a running app could use these.
            _ if !asks_to_end => vec![],
            // The apps' own result stands; only their output is given up, or nothing at all.
            Phase::Up if !self.apps.iter().any(Member::is_live) => self.give_up_output(),
            Phase::Ending => vec![],
            Phase::Up | Phase::Booting(_) => self.kill(exit_code_of_signal(signal as i32)),
        }
    }

    /// Somebody wants the pod to end.
    pub fn on_stop(&mut self) -> Vec<Action> {
        match self.phase {
            Phase::Up if self.apps.iter().any(Member::is_live) => self.stop_apps(),
            Phase::Up if self.mutable && !self.apps.iter().any(Member::is_draining) => {
                self.power_off().into()
            }
            // The apps' own result stands; whoever reads their output has as long to do so as they would have had.
            Phase::Up if !std::mem::replace(&mut self.stopping, true) => {
                vec![Action::StartGrace(self.stop_grace)]
            }
            Phase::Up | Phase::Ending => vec![],
            Phase::Booting(_) => self.kill(exit_code_of_signal(Signal::SIGTERM as i32)),
        }
    }

    /// The terminal has a new size.
    pub fn on_resize(&mut self, window: Window) -> Vec<Action> {
        let running = self.apps.iter().filter(|app| app.is_running());
        running
            .flat_map(|app| self.resize_task(app.task, window))
            .collect()
    }

    /// The pod's time is up.
    pub fn on_timeout(&mut self) -> Vec<Action> {
        match self.phase {
            Phase::Up if self.apps.iter().any(Member::is_running) => {
                self.overriding = Some(TIMED_OUT);
                let told = Action::Tell("the pod's time is up".into());
                [vec![told], self.kill_apps()].concat()
            }
            // The apps' own result stands.
            Phase::Up if !self.mutable && !self.apps.iter().any(Member::is_live) => {
                self.give_up_output()
            }
            Phase::Ending => vec![],
            Phase::Up | Phase::Booting(_) => self.kill(TIMED_OUT),
        }
    }

    /// The grace time is over.
    pub fn on_grace_over(&mut self) -> Vec<Action> {
        if self.stopping && !self.killed && self.apps.iter().any(Member::is_live) {
            return self.kill_apps();
        }
        match self.phase {
            Phase::Up if !self.apps.iter().any(Member::is_live) => self.give_up_output(),
            _ => vec![Action::Kill],
        }
    }

    /// The place of the app of this name.
    fn place(&self, name: &str) -> Result<usize, String> {
        let names: Vec<_> = self.apps.iter().map(|app| &*app.app.name).collect();
        let place = names.iter().position(|other| *other == name);
        place.ok_or_else(|| {
            let has = match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            };
            format!("the pod has no app {name:?}; it has {has}")
        })
    }

    /// The app of this name.
    fn named(&self, name: &str) -> Result<&Member, String> {
        Ok(&self.apps[self.place(name)?])
    }

    /// A number for a new task.
    fn number(&mut self) -> Result<TaskId, String> {
        let number = self.next;
        if number >= LAST {
            return Err("too many commands have been run inside the pod: start it anew".to_owned());
        }
        self.next = number + 1;
        Ok(number)
    }

    /// Who entered a command, or waits for the end of an app, wants it signalled.
    pub fn signal_task(&self, task: TaskId, signal: i32) -> Vec<Action> {
        self.tell_task(task, ToGuest::Signal { task, signal })
    }

    /// Who entered a command is gone; of an app nobody need be there.
    pub fn on_leave(&self, task: TaskId) -> Vec<Action> {
        match self.is_app(task) {
            true => vec![],
            false => self.signal_task(task, Signal::SIGHUP as i32),
        }
    }

    /// The terminal of who entered a command, or attached to an app, has a new size.
    pub fn resize_task(&self, task: TaskId, window: Window) -> Vec<Action> {
        self.tell_task(task, ToGuest::Resize { task, window })
    }

    /// The number of an app that runs.
    ///
    /// # Errors
    /// Why there is none, for the one who asked.
    pub fn running(&self, app: &str) -> Result<TaskId, String> {
        let member = self.named(app)?;
        let is_live = member.is_live() && matches!(self.phase, Phase::Up);
        is_live
            .then_some(member.task)
            .ok_or_else(|| format!("app {app:?} does not run"))
    }

    fn is_app(&self, task: TaskId) -> bool {
        self.apps.iter().any(|app| app.task == task)
    }

    /// Tells the guest something about an app or a command, unless that has ended.
    fn tell_task(&self, task: TaskId, message: ToGuest) -> Vec<Action> {
        let is_live = |app: &Member| app.task == task && app.is_live();
        let lives = self.entries.contains_key(&task) || self.apps.iter().any(is_live);
        lives.then_some(Action::Send(message)).into_iter().collect()
    }

    /// Changes the standing of app `task` if it is `from`.
    fn change(&mut self, task: TaskId, from: Standing, to: Standing) -> Option<&Member> {
        let app = self.apps.iter_mut().find(|app| app.task == task)?;
        (app.standing == from && matches!(self.phase, Phase::Up)).then(|| {
            app.standing = to;
            &*app
        })
    }

    fn greet(&mut self, version: u32) -> Option<Vec<Action>> {
        let Phase::Booting(boot) = &self.phase else {
            return None;
        };
        if version != protocol::VERSION {
            let ours = protocol::VERSION;
            return Some(self.fail(&format!(
                "guest-init speaks protocol {version}, this stage 1 {ours}: pack the image anew"
            )));
        }
        let mut actions = vec![Action::Send(ToGuest::Boot(boot.clone()))];
        self.phase = Phase::Up;
        let apps = self.apps.iter();
        let starting = apps.filter(|app| app.standing == Standing::Starting);
        actions.extend(starting.map(Member::start));
        // Not the apps are what such a pod is for, but that they can come.
        actions.extend(self.mutable.then_some(Action::Ready));
        Some(actions)
    }

    fn started(&mut self, task: TaskId) -> Option<Vec<Action>> {
        self.change(task, Standing::Starting, Standing::Running)?;
        if self.mutable {
            return Some(vec![Action::Answer(task, Answer::Started)]);
        }
        let starts = |app: &Member| app.standing == Standing::Starting;
        let is_last = !self.apps.iter().any(starts);
        Some(is_last.then_some(Action::Ready).into_iter().collect())
    }

    fn not_started(&mut self, task: TaskId, code: u8, reason: &str) -> Option<Vec<Action>> {
        let app = self.change(task, Standing::Starting, Standing::Draining(code))?;
        let reason = format!("start app {:?}: {}", app.app.name, printable(reason));
        let mut actions = self.ended(task, code);
        actions.push(Action::Tell(reason.clone()));
        let answer = Action::Answer(task, Answer::NotStarted { code, reason });
        actions.extend(self.mutable.then_some(answer));
        Some(actions)
    }

    fn exited(&mut self, task: TaskId, status: Status, memory: bool) -> Option<Vec<Action>> {
        let code = exit_code(status);
        let app = self.change(task, Standing::Running, Standing::Draining(code))?;
        let told = format!(
            "app {:?}: the kernel killed a process because the memory was used up; --memory gives more",
            app.app.name
        );
        let mut actions = self.ended(task, code);
        actions.extend(memory.then_some(Action::Tell(told)));
        Some(actions)
    }

    /// An app has ended: one that fails takes the others along, where they began together.
    fn ended(&mut self, task: TaskId, code: u8) -> Vec<Action> {
        let mut actions = vec![Action::Close(task)];
        if code != 0 && self.failing.is_none() && !self.mutable {
            self.failing = Some(code);
            actions.extend(self.stop_apps());
        }
        actions
    }

    /// Asks the apps that live to end, once.
    fn stop_apps(&mut self) -> Vec<Action> {
        let mut actions = self.signal_apps(|app| app.stop_signal);
        if actions.is_empty() || std::mem::replace(&mut self.stopping, true) {
            return vec![];
        }
        actions.push(Action::StartGrace(self.stop_grace));
        actions
    }

    fn kill_apps(&mut self) -> Vec<Action> {
        (self.stopping, self.killed) = (true, true);
        let mut actions = self.signal_apps(|_| Signal::SIGKILL as i32);
        actions.push(Action::StartGrace(GRACE));
        actions
    }

    fn signal_apps(&self, signal: impl Fn(&Member) -> i32) -> Vec<Action> {
        let live = self.apps.iter().filter(|app| app.is_live());
        live.map(|app| app.signal(signal(app))).collect()
    }

    fn give_up_output(&mut self) -> Vec<Action> {
        self.phase = Phase::Ending;
        let settled = self.apps.iter_mut().flat_map(Member::settle);
        settled.chain([Action::Kill]).collect()
    }

    /// Heard once: a guest that repeats itself gains no time by it.
    fn hear_failure(&mut self, reason: &str) -> Vec<Action> {
        if self.overriding.replace(FAILED) == Some(FAILED) {
            return vec![];
        }
        vec![
            Action::Tell(format!("guest-init: {}", printable(reason))),
            Action::Send(ToGuest::PowerOff),
            Action::StartGrace(GRACE),
        ]
    }

    fn kill(&mut self, code: u8) -> Vec<Action> {
        self.overriding.get_or_insert(code);
        vec![Action::Kill]
    }

    /// Something failed that the pod cannot live without.
    pub fn fail(&mut self, reason: &str) -> Vec<Action> {
        let mut actions = vec![Action::Tell(reason.to_owned())];
        actions.extend(self.kill(FAILED));
        actions
    }
}

/// The code a shell shows for `status`.
fn exit_code(status: Status) -> u8 {
    match status {
        Status::Code(code) => code,
        Status::Signal(signal) => exit_code_of_signal(i32::from(signal)),
    }
}

fn exit_code_of_signal(signal: i32) -> u8 {
    u8::try_from(signal.clamp(0, 127) + 128).unwrap_or(u8::MAX)
}

/// A guest's words, fit for the user's terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .take(4096)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn message_name(message: &ToHost) -> &'static str {
    match message {
        ToHost::Hello { .. } => "Hello",
        ToHost::Started { .. } => "Started",
        ToHost::NotStarted { .. } => "NotStarted",
        ToHost::Exited { .. } => "Exited",
        ToHost::Failed { .. } => "Failed",
    }
}

#[cfg(test)]
pub(crate) mod tests;

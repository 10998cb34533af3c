//! The life of a pod as a pure state machine: what the guest, the user and the clock do goes in, what is to be done
//! about it comes out. The session carries the actions out.

use std::time::Duration;

use guest_init::protocol::{self, App, Boot, Status, ToGuest, ToHost};
use nix::sys::signal::Signal;

/// Exit code of fairing's own failures.
pub const FAILED: u8 = 254;

/// How long a machine whose end is due may take.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long a machine may take to bring its scratch disk in order and end.
const POWER_OFF_GRACE: Duration = Duration::from_secs(60);

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
    /// Close streams that the guest never dialled: the app has ended, and nothing more will come.
    Drain,
    /// End the machine now; there is nothing to wait for.
    Kill,
    /// End the machine if it has not ended by itself when this time is over.
    StartGrace(Duration),
}

enum Phase {
    /// Waiting for guest-init's first message.
    Booting(Box<(Boot, App)>),
    /// The app has been sent; not yet confirmed.
    Starting,
    /// The app runs.
    Running,
    /// The app has ended; its output is still being written.
    Draining,
    /// The machine has been told to end.
    Ending,
}

/// Where a one-app pod stands.
pub struct Life {
    app: String,
    phase: Phase,
    code: Option<u8>,
    overriding: Option<u8>,
    interrupts: u32,
}

impl Life {
    /// A pod whose machine is about to boot.
    pub fn new(boot: Boot, app: App) -> Self {
        let name = app.name.clone();
        Self {
            app: name,
            phase: Phase::Booting(Box::new((boot, app))),
            code: None,
            overriding: None,
            interrupts: 0,
        }
    }

    /// The pod's exit code if the machine has ended in order or on demand; `None` = it ended by itself.
    pub fn exit_code(&self) -> Option<u8> {
        self.overriding.or(match self.phase {
            Phase::Ending => self.code,
            _ => None,
        })
    }

    /// The guest said something.
    pub fn on_message(&mut self, message: ToHost) -> Vec<Action> {
        match (message, &self.phase) {
            (ToHost::Hello { version }, Phase::Booting(_)) => self.greet(version),
            (ToHost::Started { app }, Phase::Starting) if app == self.app => {
                self.phase = Phase::Running;
                vec![Action::Ready]
            }
            (ToHost::NotStarted { app, code, reason }, Phase::Starting) if app == self.app => {
                let mut actions = self.ended(code);
                actions.push(Action::Tell(format!(
                    "start app {app:?}: {}",
                    printable(&reason)
                )));
                actions
            }
            (ToHost::Exited { app, status }, Phase::Running) if app == self.app => {
                self.ended(exit_code(status))
            }
            (ToHost::Failed { reason }, _) => {
                self.overriding.get_or_insert(FAILED);
                vec![
                    Action::Tell(format!("guest-init: {}", printable(&reason))),
                    Action::Send(ToGuest::PowerOff),
                    Action::StartGrace(GRACE),
                ]
            }
            (message, _) => self.fail(&format!(
                "the guest sent {} out of turn",
                message_name(&message)
            )),
        }
    }

    /// Every output of the app has been written out.
    pub fn on_drained(&mut self) -> Vec<Action> {
        match (&self.phase, self.code) {
            (Phase::Draining, Some(code)) => {
                self.phase = Phase::Ending;
                vec![
                    Action::Record(self.app.clone(), code),
                    Action::Send(ToGuest::PowerOff),
                    Action::StartGrace(POWER_OFF_GRACE),
                ]
            }
            _ => vec![],
        }
    }

    /// A signal came for the pod's process.
    pub fn on_signal(&mut self, signal: Signal) -> Vec<Action> {
        self.interrupts += u32::from(signal == Signal::SIGINT);
        match self.phase {
            Phase::Running if self.interrupts < 2 => {
                vec![Action::Send(ToGuest::Signal {
                    app: self.app.clone(),
                    signal: signal as i32,
                })]
            }
            // Only a running app could use these.
            _ if matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2) => vec![],
            // The app's own result stands; only its output is given up, or nothing at all.
            Phase::Draining => self.give_up_output(),
            Phase::Ending => vec![],
            _ => self.kill(exit_code_of_signal(signal as i32)),
        }
    }

    /// The terminal has a new size.
    pub fn on_resize(&mut self, window: protocol::Window) -> Vec<Action> {
        match self.phase {
            Phase::Running => vec![Action::Send(ToGuest::Resize {
                app: self.app.clone(),
                window,
            })],
            _ => vec![],
        }
    }

    /// The pod's time is up.
    pub fn on_timeout(&mut self) -> Vec<Action> {
        match self.phase {
            Phase::Running => {}
            // The app's own result stands.
            Phase::Draining => return self.give_up_output(),
            Phase::Ending => return vec![],
            Phase::Booting(_) | Phase::Starting => return self.kill(TIMED_OUT),
        }
        self.overriding = Some(TIMED_OUT);
        let kill = ToGuest::Signal {
            app: self.app.clone(),
            signal: Signal::SIGKILL as i32,
        };
        vec![
            Action::Tell("the pod's time is up".into()),
            Action::Send(kill),
            Action::StartGrace(GRACE),
        ]
    }

    /// The grace time is over.
    pub fn on_grace_over(&mut self) -> Vec<Action> {
        vec![Action::Kill]
    }

    /// The control stream carried something that is no message.
    pub fn on_control_broken(&mut self, reason: &str) -> Vec<Action> {
        self.fail(reason)
    }

    fn greet(&mut self, version: u32) -> Vec<Action> {
        if version != protocol::VERSION {
            let ours = protocol::VERSION;
            return self.fail(&format!(
                "guest-init speaks protocol {version}, this stage 1 {ours}: pack the image anew"
            ));
        }
        let Phase::Booting(messages) = std::mem::replace(&mut self.phase, Phase::Starting) else {
            return vec![];
        };
        let (boot, app) = *messages;
        vec![
            Action::Send(ToGuest::Boot(boot)),
            Action::Send(ToGuest::Start(Box::new(app))),
        ]
    }

    fn ended(&mut self, code: u8) -> Vec<Action> {
        self.code = Some(code);
        self.phase = Phase::Draining;
        vec![Action::Drain]
    }

    fn give_up_output(&mut self) -> Vec<Action> {
        self.phase = Phase::Ending;
        let record = self.code.map(|code| Action::Record(self.app.clone(), code));
        record.into_iter().chain([Action::Kill]).collect()
    }

    fn kill(&mut self, code: u8) -> Vec<Action> {
        self.overriding.get_or_insert(code);
        vec![Action::Kill]
    }

    fn fail(&mut self, reason: &str) -> Vec<Action> {
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
mod tests;

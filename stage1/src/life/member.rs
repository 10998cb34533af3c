//! One app of a pod: part of [`Life`](super::Life).

use guest_init::protocol::{App, TaskId, ToGuest};

use super::Action;
use crate::clients::Answer;

/// Where one app stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet confirmed.
    Starting,
    Running,
    /// It has ended with this code; its output is still being written.
    Draining(u8),
    /// It has ended, and all of its output is written; or, in a mutable pod, it has not been started yet.
    Idle,
}

pub struct Member {
    pub app: App,
    pub stop_signal: i32,
    /// What both sides call its present life, or the one before.
    pub task: TaskId,
    pub standing: Standing,
}

impl Member {
    pub fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Starting | Standing::Running)
    }

    pub fn is_running(&self) -> bool {
        self.standing == Standing::Running
    }

    pub fn is_draining(&self) -> bool {
        matches!(self.standing, Standing::Draining(_))
    }

    pub fn signal(&self, signal: i32) -> Action {
        let task = self.task;
        Action::Send(ToGuest::Signal { task, signal })
    }

    /// If it has ended, its output is written now, or given up: its end is told.
    pub fn settle(&mut self) -> Vec<Action> {
        let Standing::Draining(code) = self.standing else {
            return vec![];
        };
        self.standing = Standing::Idle;
        vec![
            Action::Record(self.app.name.clone(), code),
            Action::Answer(self.task, Answer::Exited { code }),
        ]
    }

    pub fn start(&self) -> Action {
        Action::Send(ToGuest::Start {
            task: self.task,
            app: Box::new(self.app.clone()),
        })
    }
}

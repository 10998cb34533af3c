//! Commands that somebody runs inside the pod's apps, by number: part of [`Life`](super::Life).

use std::collections::BTreeMap;

use guest_init::protocol::{Entry, TaskId, ToGuest, Window};

use super::Action;
use crate::clients::Answer;

/// The most commands inside a pod at a time.
const MAX_ENTRIES: usize = 64;

/// No task has this number or a higher one: each has ports of its own.
const LAST: TaskId = 1 << 24;

/// Those that have not ended.
pub struct Entries {
    next: TaskId,
    /// Whether it has started, of each.
    started: BTreeMap<TaskId, bool>,
}

impl Entries {
    /// None yet; the first is number `next`.
    pub fn after(next: TaskId) -> Self {
        Self {
            next,
            started: BTreeMap::new(),
        }
    }

    /// A number for a new one.
    pub fn number(&mut self) -> Result<TaskId, String> {
        if self.started.len() >= MAX_ENTRIES {
            return Err(format!("{MAX_ENTRIES} commands run inside the pod already"));
        }
        let number = self.next;
        if number >= LAST {
            return Err("too many commands have been run inside the pod: start it anew".to_owned());
        }
        self.next = number + 1;
        Ok(number)
    }

    pub fn enter(&mut self, task: TaskId, entry: Entry) -> Vec<Action> {
        self.started.insert(task, false);
        let entry = Box::new(entry);
        vec![Action::Send(ToGuest::Enter { task, entry })]
    }

    pub fn started(&mut self, task: TaskId) -> Option<Vec<Action>> {
        let started = self.started.get_mut(&task)?;
        (!std::mem::replace(started, true)).then(|| vec![Action::Answer(task, Answer::Started)])
    }

    pub fn ended(&mut self, task: TaskId, answer: Answer) -> Option<Vec<Action>> {
        let started = self.started.get(&task)?;
        if *started != matches!(answer, Answer::Exited { .. }) {
            return None;
        }
        self.started.remove(&task);
        Some(vec![Action::Close(task), Action::Answer(task, answer)])
    }

    pub fn signal(&self, task: TaskId, signal: i32) -> Vec<Action> {
        self.living(task)
            .map(|task| Action::Send(ToGuest::Signal { task, signal }))
            .collect()
    }

    pub fn resize(&self, task: TaskId, window: Window) -> Vec<Action> {
        self.living(task)
            .map(|task| Action::Send(ToGuest::Resize { task, window }))
            .collect()
    }

    fn living(&self, task: TaskId) -> impl Iterator<Item = TaskId> {
        self.started.contains_key(&task).then_some(task).into_iter()
    }
}

//! Commands that somebody runs inside the pod's apps, by number: part of [`Life`](super::Life).

use std::collections::BTreeMap;

use guest_init::protocol::{Entry, TaskId, ToGuest, Window};

use super::Action;
use crate::clients::Answer;

/// The most commands inside a pod at a time.
const MAX_ENTRIES: usize = 64;

/// Those that have not ended.
#[derive(Default)]
pub struct Entries {
    /// Whether it has started, of each.
    started: BTreeMap<TaskId, bool>,
}

impl Entries {
    /// Whether there may be one more.
    pub fn check_room(&self) -> Result<(), String> {
        if self.started.len() >= MAX_ENTRIES {
            return Err(format!("{MAX_ENTRIES} commands run inside the pod already"));
        }
        Ok(())
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

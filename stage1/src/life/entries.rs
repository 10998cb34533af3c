//! Commands that somebody runs inside the pod's apps: part of [`Life`].

use std::collections::BTreeMap;

use guest_init::protocol::{Entry, TaskId, ToGuest};

use super::{Action, Life};
use crate::clients::Answer;

/// The most commands inside a pod at a time.
const MAX_ENTRIES: usize = 64;

/// Those that have not ended, and whether they have started.
pub type Entries = BTreeMap<TaskId, bool>;

impl Life {
    /// The number of a command that somebody wants to enter into `app`.
    ///
    /// # Errors
    /// Why that cannot be, for the one who asked.
    pub fn number_entry(&mut self, app: &str) -> Result<TaskId, String> {
        if !self.named(app)?.is_running() {
            return Err(format!("app {app:?} does not run"));
        }
        if self.entries.len() >= MAX_ENTRIES {
            return Err(format!("{MAX_ENTRIES} commands run inside the pod already"));
        }
        self.number()
    }

    /// Enters a command, under a number that was given out.
    pub fn enter(&mut self, task: TaskId, entry: Entry) -> Vec<Action> {
        self.entries.insert(task, false);
        let entry = Box::new(entry);
        vec![Action::Send(ToGuest::Enter { task, entry })]
    }

    pub(super) fn entry_started(&mut self, task: TaskId) -> Option<Vec<Action>> {
        let started = self.entries.get_mut(&task)?;
        (!std::mem::replace(started, true)).then(|| vec![Action::Answer(task, Answer::Started)])
    }

    pub(super) fn entry_ended(&mut self, task: TaskId, answer: Answer) -> Option<Vec<Action>> {
        let started = self.entries.get(&task)?;
        if *started != matches!(answer, Answer::Exited { .. }) {
            return None;
        }
        self.entries.remove(&task);
        Some(vec![Action::Close(task), Action::Answer(task, answer)])
    }
}

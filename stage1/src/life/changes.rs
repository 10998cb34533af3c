//! Apps that come and go while their pod lives, which must be mutable: part of [`Life`].

use std::collections::{BTreeMap, BTreeSet};

use guest_init::protocol::{App, Left, Root, Status, Stdio, TaskId, ToGuest, Volume};

use super::{Action, Life, Member, Phase, Standing, printable};
use crate::clients::Answer;
use crate::plan::{self, MAX_APPS};

/// Why nothing changes in a pod that is not mutable.
pub const FIXED: &str =
    "this pod's apps are those that it began with; `app sandbox` makes one that takes others";

/// Apps whose files the guest is removing, by the task that does so.
pub type Removals = BTreeMap<TaskId, Member>;

impl Life {
    /// Takes an app in, which is to be started later.
    ///
    /// # Errors
    /// Why that cannot be, for the one who asked.
    pub fn add(&mut self, app: App, stop_signal: i32) -> Result<(), String> {
        self.check_change()?;
        if self.others().any(|other| other.name == app.name) {
            return Err(format!("the pod has an app {:?} already", app.name));
        }
        if self.apps.len() + self.removals.len() >= MAX_APPS {
            return Err(format!("a pod has at most {MAX_APPS} apps"));
        }
        // Numbers that are never given out again are never those of a living task.
        let task = self.number()?;
        self.apps.push(Member {
            app,
            stop_signal,
            task,
            standing: Standing::Idle,
        });
        Ok(())
    }

    /// Has the machine use so many of its CPUs.
    ///
    /// # Errors
    /// Why that cannot be, for the one who asked.
    pub fn set_cpus(&mut self, cpus: u8) -> Result<Vec<Action>, String> {
        self.check_change()?;
        if let Phase::Booting(boot) = &mut self.phase {
            boot.cpus = cpus;
            return Ok(vec![]);
        }
        Ok(vec![Action::Send(ToGuest::Cpus(cpus))])
    }

    /// A number for the next life of an app, and its streams under that number.
    ///
    /// # Errors
    /// Why it cannot be started, for the one who asked.
    pub fn number_start(&mut self, name: &str) -> Result<(TaskId, Stdio), String> {
        self.check_change()?;
        let place = self.place(name)?;
        if self.apps[place].standing != Standing::Idle {
            return Err(format!("app {name:?} runs already"));
        }
        let task = self.number()?;
        let app = &mut self.apps[place];
        app.task = task;
        app.app.stdio = plan::moved(app.app.stdio, task);
        Ok((task, app.app.stdio))
    }

    /// Starts the app whose next life has this number; its streams are ready.
    pub fn start(&mut self, task: TaskId) -> Vec<Action> {
        let Some(app) = self.apps.iter_mut().find(|app| app.task == task) else {
            return vec![];
        };
        app.standing = Standing::Starting;
        // A machine that is not the pod's yet is sent all apps when it is.
        let is_up = matches!(self.phase, Phase::Up);
        is_up.then(|| app.start()).into_iter().collect()
    }

    /// Asks an app to end; gives its number. `None` = it does not run, or is not there.
    ///
    /// # Errors
    /// Why that cannot be, for the one who asked.
    pub fn stop_app(&mut self, name: &str) -> Result<Option<(TaskId, Vec<Action>)>, String> {
        self.check_change()?;
        let Ok(app) = self.named(name) else {
            return Ok(None);
        };
        let task = app.task;
        match app.standing {
            Standing::Idle => Ok(None),
            Standing::Draining(_) => Ok(Some((task, vec![]))),
            _ if !matches!(self.phase, Phase::Up) => Err("the pod is still starting".to_owned()),
            Standing::Starting | Standing::Running => {
                Ok(Some((task, vec![app.signal(app.stop_signal)])))
            }
        }
    }

    /// Lets go of an app that does not run, and has the guest remove what is left of it; gives the removal's number. `None` = there
    /// is no such app.
    ///
    /// # Errors
    /// Why that cannot be, for the one who asked.
    pub fn remove(&mut self, name: &str) -> Result<Option<(TaskId, Vec<Action>)>, String> {
        self.check_change()?;
        let mut removals = self.removals.iter();
        if let Some((task, _)) = removals.find(|(_, removed)| removed.app.name == name) {
            return Ok(Some((*task, vec![])));
        }
        let Ok(place) = self.place(name) else {
            return Ok(None);
        };
        if self.apps[place].standing != Standing::Idle {
            return Err("it runs: stop it first".to_owned());
        }
        if !matches!(self.phase, Phase::Up) {
            return Err("the pod is still starting".to_owned());
        }
        let task = self.number()?;
        let removed = self.apps.remove(place);
        let app = &removed.app;
        let left = Left {
            app: app.name.clone(),
            image: image_of(app),
            shares: app.shares().next().is_some(),
            volumes: self.volumes_only_of(app),
        };
        self.removals.insert(task, removed);
        Ok(Some((
            task,
            vec![Action::Send(ToGuest::Remove { task, left })],
        )))
    }

    pub(super) fn is_removal(&self, task: TaskId) -> bool {
        self.removals.contains_key(&task)
    }

    pub(super) fn removed(&mut self, task: TaskId, status: Status) -> Option<Vec<Action>> {
        if status != Status::Code(0) {
            return self.not_removed(task, "what removes it was killed");
        }
        let app = self.removals.remove(&task)?.app;
        let (image, shares) = (image_of(&app), self.shares_only_of(&app));
        let shares_too = shares.clone();
        Some(vec![
            Action::Forget { image, shares },
            Action::Answer(task, Answer::Removed { shares: shares_too }),
        ])
    }

    /// It is the pod's as before, and may be removed again.
    pub(super) fn not_removed(&mut self, task: TaskId, reason: &str) -> Option<Vec<Action>> {
        let app = self.removals.remove(&task)?;
        self.apps.push(app);
        let reason = printable(reason);
        Some(vec![Action::Answer(task, Answer::Refused { reason })])
    }

    fn shares_only_of(&self, app: &App) -> Vec<u16> {
        let others: BTreeSet<_> = self.others().flat_map(shares_of).collect();
        let own: BTreeSet<_> = shares_of(app).collect();
        own.difference(&others).copied().collect()
    }

    fn others(&self) -> impl Iterator<Item = &App> {
        let others = self.apps.iter().chain(self.removals.values());
        others.map(|other| &other.app)
    }

    /// The empty volumes that an app got because nobody gave it one: theirs begin with its name.
    fn volumes_only_of(&self, app: &App) -> Vec<String> {
        let others: Vec<_> = self.others().flat_map(empty_volumes).collect();
        let own = empty_volumes(app).filter(|name| !others.contains(name));
        let prefix = format!("{}-", app.name);
        own.filter(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .collect()
    }

    fn check_change(&self) -> Result<(), String> {
        if !self.mutable {
            return Err(FIXED.to_owned());
        }
        if self.stopping || matches!(self.phase, Phase::Ending) {
            return Err("the pod is ending".to_owned());
        }
        Ok(())
    }
}

fn image_of(app: &App) -> Option<u8> {
    match app.root {
        Root::Image { number, .. } => Some(number),
        Root::Share(_) => None,
    }
}

fn shares_of(app: &App) -> impl Iterator<Item = u16> {
    app.shares().map(|(number, _)| number)
}

fn empty_volumes(app: &App) -> impl Iterator<Item = &str> {
    app.mounts.iter().filter_map(|mount| match &mount.volume {
        Volume::Empty { name, .. } => Some(&**name),
        Volume::Share { .. } | Volume::Layer => None,
    })
}

#[cfg(test)]
mod tests;

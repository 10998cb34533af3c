//! What those who come to a running pod wish, and what becomes of it: part of [`Session`].

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use guest_init::protocol::{Entry, Root, TaskId};
use nix::sys::signal::Signal;

use super::Session;
use crate::clients::{Answer, Attachment, NewApp, Request, Wish};
use crate::growth::Grown;
use crate::life::{self, Action};
use crate::plan;
use crate::streams::{self, Pumps};
use crate::volumes::Source;

/// What a client is granted.
enum Granted {
    /// A task, for whose end it waits, and what is to be done for it.
    Task(TaskId, Vec<Action>),
    /// An answer, and what is to be done.
    Told(Answer, Vec<Action>),
}

const KILL: i32 = Signal::SIGKILL as i32;

impl From<Answer> for Granted {
    fn from(answer: Answer) -> Self {
        Self::Told(answer, vec![])
    }
}

impl Session<'_> {
    /// Hears who came at place `index` of [`Clients::descriptors`](crate::clients::Clients::descriptors).
    pub(super) fn hear_client(&mut self, index: usize) -> Vec<Action> {
        let Some(client) = index.checked_sub(1) else {
            self.clients.accept();
            return vec![];
        };
        match self.clients.hear(client) {
            None => vec![],
            Some(Wish::Signal(task, signal)) => {
                // Nobody is waited for who does not read what the dead wrote.
                if let Some(pumps) = self.pumps.get(&task).filter(|_| signal == KILL) {
                    pumps.turn_out();
                }
                self.life.signal_task(task, signal)
            }
            Some(Wish::Resize(task, window)) => self.life.resize_task(task, window),
            Some(Wish::Leave(task)) => {
                if let Some(pumps) = self.pumps.get(&task) {
                    pumps.prune();
                }
                self.life.on_leave(task)
            }
            Some(Wish::Ask(request, beside)) => {
                let granted = self.grant(request, beside);
                match granted.unwrap_or_else(|reason| Answer::Refused { reason }.into()) {
                    Granted::Task(task, actions) => {
                        self.clients.wait_for(client, task);
                        actions
                    }
                    Granted::Told(answer, actions) => {
                        self.clients.tell(client, &answer);
                        actions
                    }
                }
            }
        }
    }

    fn grant(&mut self, request: Request, beside: Vec<OwnedFd>) -> Result<Granted, String> {
        let task = |(task, actions)| Granted::Task(task, actions);
        match request {
            Request::Enter(entry) => self.enter(*entry, beside),
            Request::Stop => Ok(Granted::Told(Answer::Done, self.life.on_stop())),
            Request::Endpoints(app) => {
                let (_, pumps) = self.pumps_of(&app)?;
                Ok(Answer::Endpoints(pumps.endpoints()).into())
            }
            Request::Attach(wanted) => self.attach(&wanted, beside),
            Request::Shares(shares) => self.number_shares(&shares),
            Request::Add(app) => self.add(*app, beside.into_iter().map(File::from).collect()),
            Request::Fit { grown, shrinks } => self.fit(&grown, shrinks),
            Request::Start(app) => self.start(&app),
            Request::StopApp(app) => {
                let stopping = self.life.stop_app(&app)?;
                Ok(stopping.map_or(Answer::NotRunning.into(), task))
            }
            Request::Remove(app) => {
                let nothing = Answer::Removed { shares: vec![] };
                Ok(self.life.remove(&app)?.map_or(nothing.into(), task))
            }
            Request::Signal(_) | Request::Resize(_) => Err("there is nothing to signal".to_owned()),
        }
    }

    fn enter(&mut self, mut entry: Entry, streams: Vec<OwnedFd>) -> Result<Granted, String> {
        let task = self.life.number_entry(&entry.app)?;
        entry.stdio = plan::moved(entry.stdio, task);
        let ports = plan::ports_of(entry.stdio);
        if ports.len() != streams.len() {
            return Err("the streams do not fit the request".to_owned());
        }
        for (port, stream) in ports.into_iter().zip(streams) {
            self.ports.lend(port, UnixStream::from(stream));
        }
        Ok(Granted::Task(task, self.life.enter(task, entry)))
    }

    /// The streams of an app that runs, and its number.
    fn pumps_of(&self, app: &str) -> Result<(TaskId, &Pumps), String> {
        let task = self.life.running(app)?;
        let pumps = self.pumps.get(&task);
        let pumps = pumps.ok_or_else(|| format!("app {app:?} has no streams"))?;
        Ok((task, pumps))
    }

    fn attach(&mut self, wanted: &Attachment, streams: Vec<OwnedFd>) -> Result<Granted, String> {
        let (task, pumps) = self.pumps_of(&wanted.app)?;
        let (has, wants) = (pumps.endpoints(), wanted.endpoints);
        if wants.terminal && !has.terminal {
            return Err(format!("app {:?} has no terminal", wanted.app));
        }
        let mut lacks = (0..3).filter(|place| wants.streams[*place] && !has.streams[*place]);
        if let Some(place) = lacks.next() {
            let name = streams::NAMES[place];
            return Err(format!("app {:?} has no {name} to attach to", wanted.app));
        }
        if streams.len() != wants.streams.iter().filter(|wants| **wants).count() {
            return Err("the streams do not fit the request".to_owned());
        }
        let mut streams = streams.into_iter().map(UnixStream::from);
        let next = |wants: bool| wants.then(|| streams.next()).flatten();
        pumps.attach(wants.streams.map(next));
        // Its size is that of who types at it.
        let window = wanted.window.filter(|_| has.terminal && wants.streams[0]);
        let resize = window.map(|window| self.life.resize_task(task, window));
        Ok(Granted::Task(task, resize.unwrap_or_default()))
    }

    fn number_shares(&mut self, shares: &[Source]) -> Result<Granted, String> {
        let reserves = self.reserves.as_mut().ok_or(life::FIXED)?;
        let numbers = reserves
            .number(shares)
            .map_err(|error| format!("{error:#}"))?;
        Ok(Answer::Shares(numbers).into())
    }

    fn add(&mut self, app: NewApp, image: Vec<File>) -> Result<Granted, String> {
        let NewApp {
            mut app,
            stop_signal,
            shares,
        } = app;
        let reserves = self.reserves.as_mut().ok_or(life::FIXED)?;
        if !reserves.have_shares_of(&app, &shares) {
            return Err("it needs shares that the pod does not have: try again".to_owned());
        }
        let image = Some(image).filter(|image| !image.is_empty());
        let root = image.map(|image| reserves.lay(image)).transpose();
        let root = root.map_err(|error| format!("{error:#}"))?;
        app.root = root.unwrap_or(app.root);
        let added = self.life.add(app, stop_signal);
        match (&added, root) {
            (Ok(()), _) => reserves.share(shares),
            (Err(_), Some(Root::Image { number, .. })) => reserves.forget(Some(number), &[]),
            (Err(_), _) => {}
        }
        added.map(|()| Answer::Done.into())
    }

    fn fit(&mut self, grown: &Grown, shrinks: bool) -> Result<Granted, String> {
        let actions = self.life.set_cpus(grown.cpus)?;
        if let Some(size) = &self.size {
            size.request(grown.plugged_mib, shrinks);
        }
        Ok(Granted::Task(life::SIZE, actions))
    }

    /// Begins the next life of an app.
    fn start(&mut self, app: &str) -> Result<Granted, String> {
        let reserves = self.reserves.as_ref().ok_or(life::FIXED)?;
        let (task, stdio) = self.life.number_start(app)?;
        let pumps = reserves.pumps(stdio, app, self.report.log(app));
        let pumps = pumps.map_err(|error| {
            // Those that have been started end.
            self.ports.close(&plan::ports(task));
            format!("{error:#}")
        })?;
        self.pumps.insert(task, pumps);
        Ok(Granted::Task(task, self.life.start(task)))
    }
}

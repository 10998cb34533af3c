//! Those who ask something of a running pod: the `enter`, `attach`, `stop` and `app/…` entrypoints, over a socket in the pod
//! directory. [`Clients`] is the pod's side, on its main thread, and never blocks; [`Caller`] is theirs.
//!
//! Whoever can reach the socket may have anything of the pod, and nothing of its process, which moves bytes and reads none.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow};
use guest_init::packets::{self, Received};
use guest_init::protocol::{App, Entry, TaskId, Window};
use nix::poll::PollFlags;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use serde::{Deserialize, Serialize};

use crate::growth::Grown;
use crate::life::{FAILED, printable};
use crate::streams::Endpoints;
use crate::volumes::Source;
use crate::waits;

/// The most clients at a time.
const MAX_CLIENTS: usize = 64;

/// How many may wait to be let in.
const BACKLOG: i32 = 16;

/// How the pod's sockets are opened.
const OPEN: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First: run this command inside an app. Its streams come as sockets beside it, in the order of their ports, which
    /// are the client's own: the pod has others for them.
    Enter(Box<Entry>),
    /// Signal it, or the app whose end is waited for.
    Signal(i32),
    /// Its terminal has a new size.
    Resize(Window),
    /// Alone: ask the apps to end, and end what does not.
    Stop,
    /// Before `Add`: numbers for folders and files of the host, to be mounted by them.
    Shares(Vec<Source>),
    /// Alone: take an app in. The files of its image, if its root is one, come beside it, and get one number of their own.
    Add(Box<NewApp>),
    /// First: have the machine grow or shrink to this, and tell when it has.
    Fit {
        /// What it is to be.
        grown: Grown,
        /// Not more than that, instead of not less.
        shrinks: bool,
    },
    /// First: start an app, and tell when it runs.
    Start(String),
    /// First: ask an app to end, and tell when it has.
    StopApp(String),
    /// Before `Attach`: what an app has to attach to.
    Endpoints(String),
    /// First: attach to an app. Streams for those that are named come as sockets beside it, in their order.
    Attach(Attachment),
    /// First: remove an app that does not run, and tell when nothing is left of it.
    Remove(String),
}

/// Streams for a running app.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the app.
    pub app: String,
    /// Which.
    pub endpoints: Endpoints,
    /// Size of the visitor's terminal.
    pub window: Option<Window>,
}

/// An app for a running pod.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewApp {
    /// The app.
    pub app: App,
    /// How it is asked to end.
    pub stop_signal: i32,
    /// What has been mounted for it, by number.
    pub shares: BTreeMap<u16, Source>,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done; of apps that are to end, they are being asked to.
    Done,
    /// The command runs.
    Started,
    /// What was asked for cannot be.
    Refused {
        /// One printable line.
        reason: String,
    },
    /// It could not be launched.
    NotStarted {
        /// As [`guest_init::protocol::ToHost::NotStarted`].
        code: u8,
        /// One printable line.
        reason: String,
    },
    /// It has ended, and its last byte is in its sockets.
    Exited {
        /// Its exit code, or 128 and the signal that killed it.
        code: u8,
    },
    /// The shares have these numbers, in the order in which they were asked for; and whether it is a new one.
    Shares(Vec<(u16, bool)>),
    /// What the app has to attach to.
    Endpoints(Endpoints),
    /// The machine has the size that was asked for last.
    Fits,
    /// The app did not run.
    NotRunning,
    /// Nothing is left of the app in the machine.
    Removed {
        /// The shares that no app needs any more.
        shares: Vec<u16>,
    },
}

/// The socket and who has come by it.
pub struct Clients {
    listener: OwnedFd,
    clients: Vec<Client>,
}

struct Client {
    socket: OwnedFd,
    /// The command that it entered, or the app that it waits for.
    task: Option<TaskId>,
}

/// What a client wants.
#[derive(Debug)]
pub enum Wish {
    /// What it came for, and what it has brought.
    Ask(Request, Vec<OwnedFd>),
    /// To signal its command or app.
    Signal(TaskId, i32),
    /// To resize its command's terminal.
    Resize(TaskId, Window),
    /// Nothing any more of its command or app.
    Leave(TaskId),
}

impl Clients {
    /// Listens at `path`, for the pod's owner alone.
    ///
    /// # Errors
    /// When there is something already, or the path is too long for a socket.
    pub fn listen(path: &Path) -> Result<Self> {
        let listen_there = || -> Result<OwnedFd> {
            let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, OPEN, None)?;
            bind(&listener, &SocketAddrUnix::new(path)?)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            listen(&listener, BACKLOG)?;
            Ok(listener)
        };
        Ok(Self {
            listener: listen_there().with_context(|| format!("listen at {}", path.display()))?,
            clients: Vec::new(),
        })
    }

    /// What to wait for: the socket, then each client.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|client| &client.socket);
        let sockets = std::iter::once(&self.listener).chain(clients);
        sockets.map(AsFd::as_fd).collect()
    }

    /// Lets in whoever waits; one too many is turned away.
    pub fn accept(&mut self) {
        while let Ok(socket) = accept_with(&self.listener, OPEN) {
            if self.clients.len() < MAX_CLIENTS {
                let client = Client { socket, task: None };
                self.clients.push(client);
            }
        }
    }

    /// Hears client `index`; what it wants comes with its index, which holds until the next call.
    pub fn hear(&mut self, index: usize) -> Option<Wish> {
        let client = self.clients.get(index)?;
        match (packets::receive(client.socket.as_fd()), client.task) {
            (Ok(Received::Nothing), _) => None,
            (Ok(Received::Message(request, beside)), None) => Some(Wish::Ask(request, beside)),
            (Ok(Received::Message(Request::Signal(signal), _)), Some(task)) => {
                Some(Wish::Signal(task, signal))
            }
            (Ok(Received::Message(Request::Resize(window), _)), Some(task)) => {
                Some(Wish::Resize(task, window))
            }
            // It is gone, or speaks another language.
            (_, task) => {
                self.clients.remove(index);
                task.map(Wish::Leave)
            }
        }
    }

    /// What client `index` waits for has a number.
    pub fn wait_for(&mut self, index: usize, task: TaskId) {
        if let Some(client) = self.clients.get_mut(index) {
            client.task = Some(task);
        }
    }

    /// Answers client `index`, which may ask for more.
    pub fn tell(&self, index: usize, answer: &Answer) {
        if let Some(client) = self.clients.get(index) {
            tell(client, answer);
        }
    }

    /// Whether somebody waits for `task`.
    pub fn is_awaited(&self, task: TaskId) -> bool {
        self.clients.iter().any(|client| client.task == Some(task))
    }

    /// Tells whoever waits for `task`; after its last answer a client is let go.
    pub fn answer(&mut self, task: TaskId, answer: &Answer) {
        let waits = |client: &Client| client.task == Some(task);
        let waiting = self.clients.iter().filter(|client| waits(client));
        waiting.for_each(|client| tell(client, answer));
        if *answer != Answer::Started {
            self.clients.retain(|client| !waits(client));
        }
    }
}

/// A client that does not listen has itself to blame.
fn tell(client: &Client, answer: &Answer) {
    let _ = packets::send(client.socket.as_fd(), answer, &[]);
}

/// Somebody who asks, on the other side of the socket.
pub struct Caller(OwnedFd);

impl Caller {
    /// Comes to the pod whose socket is at `path`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn come(path: &Path) -> Result<Self> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket =
            socket_with(family, kind, SocketFlags::CLOEXEC, None).context("make a socket")?;
        connect(&socket, &SocketAddrUnix::new(path)?)
            .context("reach the pod's process; does the pod still run?")?;
        Ok(Self(socket))
    }

    /// Asks for something, with descriptors beside it.
    ///
    /// # Errors
    /// When the request is too long, or the pod gone.
    pub fn ask(&self, request: &Request, beside: &[BorrowedFd<'_>]) -> Result<()> {
        packets::send(self.as_fd(), request, beside).context("ask the pod")
    }

    /// Waits for an answer until a moment, or for ever; gives whether there is one.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn wait(&self, until: Option<Instant>) -> Result<bool> {
        loop {
            let answer = vec![((), self.as_fd(), PollFlags::POLLIN)];
            let is_there = !waits::wait(answer, until, "the pod's answer")?.is_empty();
            if is_there || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(is_there);
            }
        }
    }

    /// The next answer, waited for; `None` = the pod's process has let go.
    ///
    /// # Errors
    /// When it is none of ours.
    pub fn hear(&self) -> Result<Option<Answer>> {
        loop {
            self.wait(None)?;
            match packets::receive(self.as_fd())? {
                Received::Nothing => {}
                Received::End => return Ok(None),
                Received::Message(answer, _) => return Ok(Some(answer)),
            }
        }
    }

    /// Looks whether what was asked for has ended; gives its exit code.
    ///
    /// # Errors
    /// When the pod refuses it, or answers something else.
    pub fn look_for_end(&self) -> Result<Option<u8>> {
        match packets::receive(self.as_fd())? {
            Received::Nothing | Received::Message(Answer::Started, _) => Ok(None),
            Received::Message(Answer::Exited { code }, _) => Ok(Some(code)),
            Received::Message(Answer::NotStarted { code, reason }, _) => {
                crate::tell(&printable(&reason));
                Ok(Some(code))
            }
            Received::Message(other, _) => Err(refusal(Some(other))),
            Received::End => {
                crate::tell("the pod has ended");
                Ok(Some(FAILED))
            }
        }
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What an answer that is not the one hoped for says; `None` = the pod's process has let go.
pub fn refusal(answer: Option<Answer>) -> Error {
    match answer {
        Some(Answer::Refused { reason } | Answer::NotStarted { reason, .. }) => {
            Error::msg(printable(&reason))
        }
        Some(_) => anyhow!("the pod's process did not understand"),
        None => match contract::is_running(Path::new(".")) {
            Ok(true) => anyhow!("the pod's process has too many visitors; try again"),
            Ok(false) => anyhow!("the pod has ended"),
            Err(error) => error,
        },
    }
}

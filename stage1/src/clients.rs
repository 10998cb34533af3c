//! Those who ask something of a running pod: the `enter` and `stop` entrypoints, over a socket in the pod directory. The pod's side;
//! on the main thread, without blocking.
//!
//! Whoever can reach the socket may have anything of the pod, and nothing of its process, which moves bytes and reads none.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use guest_init::protocol::{Entry, TaskId, Window};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use serde::{Deserialize, Serialize};

use crate::packets::{self, Received};

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
    /// Signal it.
    Signal(i32),
    /// Its terminal has a new size.
    Resize(Window),
    /// Alone: ask the apps to end, and end what does not.
    Stop,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The apps are being asked to end.
    Stopping,
    /// The command runs.
    Started,
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
}

/// The socket and who has come by it.
pub struct Clients {
    listener: OwnedFd,
    clients: Vec<Client>,
}

struct Client {
    socket: OwnedFd,
    /// The command that it entered.
    task: Option<TaskId>,
}

/// What a client wants.
#[derive(Debug)]
pub enum Wish {
    /// To enter a command whose streams are these sockets.
    Enter(Box<Entry>, Vec<OwnedFd>),
    /// To signal its command.
    Signal(TaskId, i32),
    /// That the pod ends; it has been told that this is heard.
    Stop,
    /// To resize its command's terminal.
    Resize(TaskId, Window),
    /// Nothing any more of its command.
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
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|client| client.socket.as_fd());
        std::iter::once(self.listener.as_fd()).chain(clients)
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
            (Ok(Received::Message(Request::Enter(entry), streams)), None) => {
                Some(Wish::Enter(entry, streams))
            }
            (Ok(Received::Message(Request::Stop, _)), None) => {
                tell(&self.clients.remove(index), &Answer::Stopping);
                Some(Wish::Stop)
            }
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

    /// The command of client `index` has a number.
    pub fn enter(&mut self, index: usize, task: TaskId) {
        if let Some(client) = self.clients.get_mut(index) {
            client.task = Some(task);
        }
    }

    /// Refuses what client `index` wants, and lets it go.
    pub fn refuse(&mut self, index: usize, reason: String) {
        if index < self.clients.len() {
            let code = crate::life::FAILED;
            tell(
                &self.clients.remove(index),
                &Answer::NotStarted { code, reason },
            );
        }
    }

    /// Tells whoever entered `task`; after its last answer a client is let go.
    pub fn answer(&mut self, task: TaskId, answer: &Answer) {
        let Some(index) = self
            .clients
            .iter()
            .position(|client| client.task == Some(task))
        else {
            return;
        };
        tell(&self.clients[index], answer);
        if *answer != Answer::Started {
            self.clients.remove(index);
        }
    }
}

/// A client that does not listen has itself to blame.
fn tell(client: &Client, answer: &Answer) {
    let _ = packets::send(client.socket.as_fd(), answer, &[]);
}

/// Comes to the pod whose socket is at `path`.
///
/// # Errors
/// When nobody listens there.
pub fn come(path: &Path) -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).context("make a socket")?;
    connect(&socket, &SocketAddrUnix::new(path)?)
        .context("reach the pod's process; does the pod still run?")?;
    Ok(socket)
}

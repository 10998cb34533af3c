//! Every connection with its socket, found by number or by ports. Owned by the device; the numbers are not used
//! twice in a run, so a stale one finds nothing.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use super::connection::Connection;

/// The most connections at a time, those included whose last bytes are still being written.
pub const MAX_CONNECTIONS: usize = 1024;

/// Number of a connection.
pub type Id = u64;

/// A connection, its socket, and where it stands in the session's queues.
pub struct Link {
    /// The host's side; non-blocking.
    pub stream: UnixStream,
    /// Its state.
    pub connection: Connection,
    /// What epoll watches it for; `None` is not at all.
    pub watched: Option<EventSet>,
    /// It is in the queue of readable sockets.
    pub readable: bool,
    /// It is in the queue of connections that owe a control packet.
    pub owing: bool,
}

/// All connections.
#[derive(Default)]
pub struct Table {
    links: BTreeMap<Id, Link>,
    by_ports: BTreeMap<(u32, u32), Id>,
    last: Id,
}

impl Table {
    /// Whether there is no room for one more.
    pub fn is_full(&self) -> bool {
        self.links.len() >= MAX_CONNECTIONS
    }

    /// Adds a connection between ports that have none.
    pub fn insert(&mut self, stream: UnixStream, connection: Connection) -> Id {
        self.last += 1;
        self.by_ports.insert(connection.ports(), self.last);
        let link = Link {
            stream,
            connection,
            watched: None,
            readable: false,
            owing: false,
        };
        self.links.insert(self.last, link);
        self.last
    }

    /// The connection between these ports, the guest's and the host's.
    pub fn find(&self, ports: (u32, u32)) -> Option<Id> {
        self.by_ports.get(&ports).copied()
    }

    /// The connection of that number.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// Frees the ports while the connection lives on.
    pub fn orphan(&mut self, id: Id) {
        if let Some(link) = self.links.get(&id)
            && self.find(link.connection.ports()) == Some(id)
        {
            self.by_ports.remove(&link.connection.ports());
        }
    }

    /// Takes a connection out.
    pub fn remove(&mut self, id: Id) -> Option<Link> {
        self.orphan(id);
        self.links.remove(&id)
    }

    /// The numbers of all connections.
    pub fn ids(&self) -> Vec<Id> {
        self.links.keys().copied().collect()
    }
}

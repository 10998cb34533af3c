//! Those who are attached to one stream of an app: the session lets them in and out, the stream's pump serves them.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// The visitors, by their sockets. No lock is held while one of them is read or written.
#[derive(Default)]
pub struct Visitors {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    streams: Vec<Arc<UnixStream>>,
    closed: bool,
}

impl Visitors {
    /// Lets one in; after the end it finds the door shut.
    pub fn add(&self, stream: UnixStream) {
        self.prune();
        let mut state = self.state();
        if !state.closed {
            state.streams.push(Arc::new(stream));
            self.changed.notify_all();
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<UnixStream>> {
        self.state().streams.clone()
    }

    /// The first, once there is one; `None` = the end.
    pub fn next(&self) -> Option<Arc<UnixStream>> {
        let waits = |state: &mut State| state.streams.is_empty() && !state.closed;
        let state = self.changed.wait_while(self.state(), waits);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.streams.first().cloned()
    }

    /// Lets one out.
    pub fn remove(&self, stream: &Arc<UnixStream>) {
        let is_other = |other: &Arc<UnixStream>| !Arc::ptr_eq(other, stream);
        self.state().streams.retain(is_other);
    }

    /// Lets those out who have left, and whose last words have been read.
    pub fn prune(&self) {
        self.state().streams.retain(|stream| is_there(stream));
    }

    /// Breaks off with all, so that nobody waits for one of them.
    pub fn turn_out(&self) {
        for stream in self.state().streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The end: all are let out, and nobody in.
    pub fn close(&self) {
        self.state().closed = true;
        self.turn_out();
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_there(stream: &UnixStream) -> bool {
    let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match recv(stream.as_fd(), &mut [0][..], peek) {
        Ok((_, bytes)) => bytes > 0,
        Err(error) => error == Errno::AGAIN,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use super::*;

    #[test]
    fn visitor_who_left_is_let_out_once_his_last_word_is_read() {
        let visitors = Visitors::default();
        let (stays, ours) = UnixStream::pair().expect("a socket pair");
        visitors.add(ours);
        let (mut leaves, ours) = UnixStream::pair().expect("a socket pair");
        visitors.add(ours);
        leaves.write_all(b"x").expect("room");
        drop(leaves);
        visitors.prune();
        assert_eq!(visitors.all().len(), 2);
        let last = visitors.all().pop().expect("it is there");
        assert_eq!(
            std::io::Read::read(&mut &*last, &mut [0; 2]).expect("a word"),
            1
        );
        visitors.prune();
        assert_eq!(visitors.all().len(), 1);
        drop(stays);
    }

    #[test]
    fn end_wakes_who_waits_for_a_visitor_and_shuts_the_door() {
        let visitors = Arc::new(Visitors::default());
        let waiting = Arc::clone(&visitors);
        let waiting = thread::spawn(move || waiting.next().is_none());
        visitors.close();
        assert!(waiting.join().expect("no panic"));
        let (late, ours) = UnixStream::pair().expect("a socket pair");
        visitors.add(ours);
        assert!(visitors.all().is_empty() && visitors.next().is_none());
        drop(late);
    }
}

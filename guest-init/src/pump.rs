//! One direction of an app's stdio between two descriptors: `Flow` with the kernel around it.
//!
//! Owned by `Streams`, stepped by the supervision loop when poll says so. Both descriptors are nonblocking. A sink that is a
//! socket is half-closed at the end and kept until the host closes its side, so that nothing on the way is cut off.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use crate::flow::{Flow, Read};

/// poll's sign that the peer of a socket has closed its sending side, which nix does not name.
const POLLRDHUP: PollFlags = PollFlags::from_bits_retain(libc::POLLRDHUP);

/// One direction.
pub struct Pump {
    flow: Flow,
    source: Option<Rc<File>>,
    sink: Option<Rc<File>>,
    half_closed: bool,
    peer_finished: bool,
}

impl Pump {
    /// Carries what `source` gives to `sink`.
    pub fn new(source: Rc<File>, sink: Rc<File>) -> Self {
        Self {
            flow: Flow::new(),
            source: Some(source),
            sink: Some(sink),
            half_closed: false,
            peer_finished: false,
        }
    }

    /// The source and what to wait for there.
    pub fn poll_source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let source = self.source.as_ref().filter(|_| self.flow.wants_read())?;
        Some((source.as_fd(), PollFlags::POLLIN))
    }

    /// The sink and what to wait for there; poll reports its failure in any case.
    pub fn poll_sink(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut events = PollFlags::empty();
        events.set(POLLRDHUP, !self.peer_finished);
        events.set(PollFlags::POLLOUT, !self.flow.pending().is_empty());
        Some((self.sink.as_ref()?.as_fd(), events))
    }

    /// Moves what can be moved without waiting.
    pub fn step(&mut self) {
        self.read();
        self.write();
        // Nothing announces that a silent source has no more to say, so it is asked until it has not.
        while self.flow.takes_last_words() && self.flow.wants_read() {
            self.read();
            self.write();
        }
        self.settle();
    }

    /// Answers an event on the sink. `None` stands for bits that nix does not know, which is [`POLLRDHUP`] alone.
    pub fn sink_event(&mut self, events: Option<PollFlags>) {
        let failed =
            events.is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
        if failed || (events.is_none() && !self.peer_still_reads()) {
            self.flow.sink_gone();
            self.sink = None;
        }
        self.step();
    }

    /// From now on the source ends where it has nothing more to read: its writer is dead.
    pub fn take_last_words(&mut self) {
        self.flow.take_last_words();
        self.step();
    }

    /// Whether everything was handed to the kernel, or nobody takes it.
    pub fn is_delivered(&self) -> bool {
        self.flow.is_done()
    }

    /// Whether both descriptors are closed.
    pub fn is_closed(&self) -> bool {
        self.source.is_none() && self.sink.is_none()
    }

    fn read(&mut self) {
        let (Some(source), Some(room)) = (&self.source, self.flow.room()) else {
            return;
        };
        let read = match (&**source).read(room) {
            Ok(count @ 1..) => Read::Bytes(count),
            Err(error) if may_go_on(&error) => Read::Blocked,
            Ok(_) | Err(_) => Read::End,
        };
        self.flow.filled(read);
    }

    fn write(&mut self) {
        let (Some(sink), [_, ..]) = (&self.sink, self.flow.pending()) else {
            return;
        };
        match (&**sink).write(self.flow.pending()) {
            Ok(count) => self.flow.sent(count),
            Err(error) if may_go_on(&error) => {}
            Err(_) => self.flow.sink_gone(),
        }
    }

    /// Closes what the flow needs no more.
    fn settle(&mut self) {
        if self.flow.is_source_done() {
            self.source = None;
        }
        if self.flow.is_done() && !self.half_closed {
            self.half_closed = true;
            let sink = self.sink.as_ref();
            let half_closed = sink.map(|sink| shutdown(sink.as_raw_fd(), Shutdown::Write));
            // What is no socket is closed; a socket whose peer has finished too is needed no more.
            if half_closed != Some(Ok(())) || self.peer_finished {
                self.sink = None;
            }
        }
    }

    /// The peer sends no more; whether it has closed altogether only a send can tell.
    fn peer_still_reads(&mut self) -> bool {
        self.peer_finished = true;
        let sink = self.sink.as_ref();
        let probe = sink.map(|sink| send(sink.as_raw_fd(), &[], MsgFlags::MSG_NOSIGNAL));
        !self.half_closed
            && !matches!(
                probe,
                Some(Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN))
            )
    }
}

fn may_go_on(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollTimeout, poll};
    use nix::unistd::pipe2;

    use super::*;
    use crate::host::never_wait;

    /// A deadline for events that come at once, milliseconds.
    const SOON: PollTimeout = PollTimeout::ZERO;

    fn pipe() -> (File, File) {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    fn socket() -> (File, UnixStream) {
        let (ours, host) = UnixStream::pair().unwrap();
        (File::from(std::os::fd::OwnedFd::from(ours)), host)
    }

    fn pump(source: File, sink: File) -> Pump {
        never_wait(&source).unwrap();
        never_wait(&sink).unwrap();
        Pump::new(Rc::new(source), Rc::new(sink))
    }

    /// One turn of the supervision loop; whether anything happened.
    fn turn(pump: &mut Pump, timeout: PollTimeout) -> bool {
        let ends = [pump.poll_source(), pump.poll_sink()];
        let mut waits: Vec<_> = ends
            .iter()
            .flatten()
            .map(|(end, events)| PollFd::new(*end, *events))
            .collect();
        poll(&mut waits, timeout).unwrap();
        let mut answers = waits.into_iter().map(|wait| wait.revents());
        let [source, sink] = ends.map(|end| end.and_then(|_| answers.next()));
        let happened = |events: &Option<Option<PollFlags>>| {
            events.is_some_and(|events| events != Some(PollFlags::empty()))
        };
        let (on_source, on_sink) = (happened(&source), happened(&sink));
        if on_source {
            pump.step();
        }
        if let Some(events) = sink.filter(|_| on_sink) {
            pump.sink_event(events);
        }
        on_source || on_sink
    }

    #[test]
    fn pump_megabytes_to_a_slow_reader_arrive_whole() {
        let sent: Vec<u8> = (0..3_000_000u32)
            .map(|number| number.to_le_bytes()[1])
            .collect();
        let ((source, mut app), (sink, mut host)) = (pipe(), socket());
        let mut pump = pump(source, sink);
        let written = sent.clone();
        let writer = thread::spawn(move || app.write_all(&written).unwrap());
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            host.read_to_end(&mut received).unwrap();
            received
        });
        while !pump.is_closed() {
            turn(&mut pump, PollTimeout::NONE);
        }
        writer.join().unwrap();
        assert!(reader.join().unwrap() == sent);
    }

    #[test]
    fn pump_sink_that_nobody_reads_waits_without_events() {
        let ((source, app), (sink, _host)) = (pipe(), socket());
        never_wait(&app).unwrap();
        let mut pump = pump(source, sink);
        let mut filled = 0;
        while (&app).write(&[0; 4096]).is_ok() || turn(&mut pump, SOON) {
            filled += 1;
            assert!(filled < 10_000, "the writer is stopped at some time");
        }
        assert!(!pump.is_delivered());
    }

    #[test]
    fn pump_host_gone_closes_the_apps_pipe() {
        let ((source, mut app), (sink, host)) = (pipe(), socket());
        let mut pump = pump(source, sink);
        drop(host);
        assert!(turn(&mut pump, SOON));
        assert!(pump.is_closed());
        assert_eq!(app.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn pump_host_that_sends_no_more_still_gets_everything() {
        let ((source, mut app), (sink, mut host)) = (pipe(), socket());
        let mut pump = pump(source, sink);
        host.shutdown(std::net::Shutdown::Write).unwrap();
        while turn(&mut pump, SOON) {}
        app.write_all(b"late").unwrap();
        while turn(&mut pump, SOON) {}
        drop(app);
        while turn(&mut pump, SOON) {}
        assert!(pump.is_closed());
        let mut received = String::new();
        host.read_to_string(&mut received).unwrap();
        assert_eq!(received, "late");
    }

    #[test]
    fn pump_app_that_closed_stdin_ends_without_spinning() {
        let ((source, mut host), (app, sink)) = (socket(), pipe());
        let mut pump = pump(source, sink);
        drop(app);
        assert!(turn(&mut pump, SOON));
        assert!(pump.is_closed());
        assert_eq!(host.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn pump_last_words_do_not_wait_for_other_writers() {
        let ((source, mut app), (sink, mut host)) = (pipe(), socket());
        let mut pump = pump(source, sink);
        let _grandchild = app.try_clone().unwrap();
        app.write_all(b"bye").unwrap();
        drop(app);
        pump.take_last_words();
        while turn(&mut pump, SOON) {}
        assert!(pump.is_delivered());
        let mut received = String::new();
        host.read_to_string(&mut received).unwrap();
        assert_eq!(received, "bye");
    }
}

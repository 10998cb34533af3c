//! One direction of an app's stdio: a bounded buffer between a source and a sink, as a pure state machine.
//!
//! `Pump` feeds it with what the kernel answers. The buffer is refilled only when it is empty, so a slow sink stops the
//! reading, and with it the writer behind the source. Does no I/O.

/// Bytes that a flow holds at most.
pub const BUFFER_BYTES: usize = 64 << 10;

/// What a read from the source gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, now in the buffer.
    Bytes(usize),
    /// Nothing yet.
    Blocked,
    /// The source has ended or failed.
    End,
}

/// One direction.
#[derive(Debug)]
pub struct Flow {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    source_open: bool,
    sink_open: bool,
    last_words: bool,
}

impl Flow {
    /// An empty flow with both ends open.
    pub fn new() -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self {
            buffer,
            start: 0,
            end: 0,
            source_open: true,
            sink_open: true,
            last_words: false,
        }
    }

    /// Where the next bytes of the source go; `None` while it must not be read.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        self.wants_read().then_some(&mut self.buffer[..])
    }

    /// Whether the source is to be read when it has something.
    pub fn wants_read(&self) -> bool {
        self.source_open && self.sink_open && self.start == self.end
    }

    /// Records the answer to a read into [`Flow::room`].
    pub fn filled(&mut self, read: Read) {
        match read {
            Read::Bytes(count) => (self.start, self.end) = (0, count.min(self.buffer.len())),
            Read::Blocked => self.source_open &= !self.last_words,
            Read::End => self.source_open = false,
        }
    }

    /// The bytes that the sink has not taken; empty when its end is closed.
    pub fn pending(&self) -> &[u8] {
        if self.sink_open {
            &self.buffer[self.start..self.end]
        } else {
            &[]
        }
    }

    /// Records that the sink took `count` of the pending bytes.
    pub fn sent(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Records that nobody reads behind the sink.
    pub fn sink_gone(&mut self) {
        (self.sink_open, self.source_open) = (false, false);
    }

    /// From now on the source ends where it has nothing more to read.
    pub fn take_last_words(&mut self) {
        self.last_words = true;
    }

    /// Whether [`Flow::take_last_words`] was called.
    pub fn takes_last_words(&self) -> bool {
        self.last_words
    }

    /// Whether the source may be closed.
    pub fn is_source_done(&self) -> bool {
        !self.source_open
    }

    /// Whether the sink may be closed: everything was taken, or nobody takes it.
    pub fn is_done(&self) -> bool {
        !self.source_open && self.pending().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One answer of the kernel to the pump.
    #[derive(Clone, Debug)]
    enum Event {
        Arrives(Vec<u8>),
        Nothing,
        Takes(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            prop::collection::vec(any::<u8>(), 1..300).prop_map(Event::Arrives),
            Just(Event::Nothing),
            (0usize..400).prop_map(Event::Takes),
        ];
        prop::collection::vec(event, 0..200)
    }

    fn read(flow: &mut Flow, bytes: &[u8]) -> bool {
        let Some(room) = flow.room() else {
            return false;
        };
        room[..bytes.len()].copy_from_slice(bytes);
        flow.filled(Read::Bytes(bytes.len()));
        true
    }

    fn take(flow: &mut Flow, limit: usize) -> Vec<u8> {
        let taken = flow.pending()[..limit.min(flow.pending().len())].to_vec();
        flow.sent(taken.len());
        taken
    }

    proptest! {
        #[test]
        fn flow_any_chunks_arrive_once_and_in_order(events in events()) {
            let (mut flow, mut went_in, mut came_out) = (Flow::new(), Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Arrives(bytes) => if read(&mut flow, &bytes) { went_in.extend(bytes) },
                    Event::Nothing => if flow.wants_read() { flow.filled(Read::Blocked) },
                    Event::Takes(limit) => came_out.extend(take(&mut flow, limit)),
                }
                prop_assert!(flow.pending().len() <= BUFFER_BYTES);
                prop_assert!(flow.wants_read() == flow.pending().is_empty(), "exactly one end is waited for");
            }
            came_out.extend(take(&mut flow, usize::MAX));
            prop_assert_eq!(went_in, came_out);
            flow.filled(Read::End);
            prop_assert!(flow.is_done());
        }
    }

    #[test]
    fn flow_source_ended_with_bytes_pending_is_done_only_when_they_are_taken() {
        let mut flow = Flow::new();
        assert!(read(&mut flow, b"last"));
        flow.filled(Read::End);
        assert!(flow.is_source_done() && !flow.is_done());
        take(&mut flow, 3);
        assert!(!flow.is_done());
        take(&mut flow, 1);
        assert!(flow.is_done());
    }

    #[test]
    fn flow_sink_gone_waits_for_nothing() {
        let mut flow = Flow::new();
        assert!(read(&mut flow, b"unread"));
        flow.sink_gone();
        assert!(!flow.wants_read() && flow.pending().is_empty() && flow.is_done());
    }

    #[test]
    fn flow_last_words_end_where_the_source_blocks() {
        let mut flow = Flow::new();
        flow.filled(Read::Blocked);
        assert!(flow.wants_read());
        flow.take_last_words();
        assert!(read(&mut flow, b"x"));
        assert!(!flow.is_done());
        take(&mut flow, 1);
        flow.filled(Read::Blocked);
        assert!(flow.is_done());
    }
}

//! The network card. Input: a byte of options, then guest memory.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vmm::net::{Limit, Link, Meter, Net};
use vmm_sys_util::eventfd::EventFd;

use crate::queues::{Guest, Image};

const EVENT_IDX: u8 = 1;
const MERGEABLE: u8 = 2;
const HOST_SENDS: u8 = 4;
const FULL: u8 = 8;
/// VIRTIO_NET_F_MRG_RXBUF.
const MRG_RXBUF: u64 = 1 << 15;
/// In front of every frame.
const HEADER_BYTES: usize = 12;

/// A link that has a frame of each of these lengths, header and all, each time it is asked.
struct Scripted {
    event: EventFd,
    lengths: Mutex<Vec<usize>>,
    /// It has no room for the next frame at first.
    full: AtomicBool,
    is_often_full: bool,
    sent_bytes: Arc<AtomicUsize>,
}

impl AsFd for Scripted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[expect(unsafe_code, reason = "EventFd gives no borrowed descriptor")]
        // SAFETY: the descriptor is open as long as the EventFd that is borrowed.
        unsafe {
            BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(&self.event))
        }
    }
}

impl Link for Scripted {
    fn offloads(&self) -> u64 {
        0
    }

    fn set_offloads(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        let next = self.lengths.lock().expect("one thread").pop();
        let length = next.ok_or(ErrorKind::WouldBlock)?;
        frame[..length].fill(0x5a);
        Ok(length)
    }
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        assert!(
            frame.len() > HEADER_BYTES,
            "a frame of {} bytes",
            frame.len()
        );
        if self.is_often_full && !self.full.fetch_not(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.sent_bytes.fetch_add(frame.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// Lets the guest send and receive, three turns.
pub fn run(input: &[u8]) {
    serve(input);
}

fn serve(input: &[u8]) -> Option<(Guest, usize)> {
    let (options, image) = input.split_first()?;
    let sent_bytes = Arc::default();
    let lengths = match options & HOST_SENDS {
        0 => vec![],
        _ => vec![60_000, 300, 1514, 20, 3, 62],
    };
    let link = Scripted {
        event: EventFd::new(0).expect("a descriptor"),
        lengths: Mutex::new(lengths),
        full: AtomicBool::new(false),
        is_often_full: options & FULL != 0,
        sent_bytes: Arc::clone(&sent_bytes),
    };
    let meters = [0; 2].map(|_| Meter::new(Limit::default()));
    let device = Box::new(Net::new(Box::new(link), [2, 0, 0, 0, 0, 1], 1500, meters));
    let mut guest = Guest::new(image, device, options & EVENT_IDX != 0);
    if options & MERGEABLE != 0 {
        guest.features = MRG_RXBUF;
    }
    for _ in 0..3 {
        guest.turn();
        guest.offer_again();
    }
    Some((guest, sent_bytes.load(Ordering::Relaxed)))
}

/// Frames both ways, in one buffer and in several.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let image = |buffers: &[usize]| {
        let mut image = Image::new(2);
        for _ in 0..6 {
            image.chain(0, &[], buffers);
        }
        image.chain(1, &[&[0; HEADER_BYTES], &[7; 60]], &[]);
        image.chain(1, &[&[0; HEADER_BYTES + 600]], &[]);
        image.chain(1, &[&[0; 5]], &[]);
        image
    };
    vec![
        image(&[100, 400]).with_options(EVENT_IDX | MERGEABLE | HOST_SENDS),
        image(&[1600]).with_options(HOST_SENDS),
        image(&[12]).with_options(EVENT_IDX | FULL),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_sent_and_filled() {
        let served: Vec<_> = super::seeds()
            .iter()
            .map(|seed| super::serve(seed).expect("a whole input"))
            .collect();
        assert!(served.iter().all(|(_, sent)| *sent >= 72 + 612));
        // 62, 20 and 1514 bytes, of which the last takes four buffers; then 62, 20, 1514 and 300.
        let filled = [0, 1].map(|at: usize| served[at].0.used(0));
        assert_eq!(filled, [6, 4]);
    }
}

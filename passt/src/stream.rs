//! A stream of frames, each behind its length: what QEMU's `-netdev stream` speaks, and passt with it.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Ipv6Addr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A frame's length in front of it, in network order.
const LENGTH_BYTES: usize = 4;

/// The longest frame, bytes: more than passt sends.
const FRAME_BYTES: usize = 68 << 10;

/// Ethernet's own header.
const ETHERNET_BYTES: usize = 14;

/// A connected socket. It never waits.
pub struct Stream {
    socket: UnixStream,
    arrived: RefCell<Arrived>,
    /// What has not gone of a frame whose beginning has.
    rest: RefCell<Vec<u8>>,
}

/// What has arrived and not been taken.
struct Arrived {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl Stream {
    /// The frames of `socket`.
    ///
    /// # Errors
    /// Those of fcntl.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let arrived = Arrived {
            bytes: vec![0; 2 * FRAME_BYTES],
            range: 0..0,
        };
        Ok(Self {
            socket,
            arrived: RefCell::new(arrived),
            rest: RefCell::default(),
        })
    }

    /// Takes one frame; its length, bytes.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; with any other the cable leads nowhere any more.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        let mut arrived = self.arrived.borrow_mut();
        let range = loop {
            match arrived.frame(frame.len())? {
                Some(range) => break range,
                None => arrived.read(&self.socket)?,
            }
        };
        arrived.range.start = range.end;
        let bytes = range.len();
        frame[..bytes].copy_from_slice(&arrived.bytes[range]);
        Ok(bytes)
    }

    /// Gives one frame.
    ///
    /// # Errors
    /// `WouldBlock` when it has not all gone, and is to be given again as it is, once the descriptor is writable. Else it is
    /// refused, and lost.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        if is_to_loopback(frame) {
            return Err(io::Error::other("it is to the host's loopback"));
        }
        let mut rest = self.rest.borrow_mut();
        // The rest is that of `frame`, if it was given again as is asked for: else `frame` is lost, and the stream goes on.
        if rest.is_empty() {
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            let length = length.to_be_bytes();
            let parts = [IoSlice::new(&length), IoSlice::new(frame)];
            let gone_bytes = (&self.socket).write_vectored(&parts)?;
            let parts = length.iter().chain(frame);
            rest.extend(parts.skip(gone_bytes));
        }
        while !rest.is_empty() {
            let gone_bytes = (&self.socket).write(&rest)?;
            rest.drain(..gone_bytes);
        }
        Ok(())
    }
}

impl Arrived {
    /// Where the first frame is, if it is whole; it is to have at most so many bytes.
    fn frame(&self, most_bytes: usize) -> io::Result<Option<Range<usize>>> {
        let bytes = &self.bytes[self.range.clone()];
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > most_bytes.min(FRAME_BYTES) {
            let why = format!("a frame of {length} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let begin = self.range.start + LENGTH_BYTES;
        Ok((rest.len() >= length).then(|| begin..begin + length))
    }

    /// Reads what has come, behind what is there.
    fn read(&mut self, mut socket: &UnixStream) -> io::Result<()> {
        self.bytes.copy_within(self.range.clone(), 0);
        self.range = 0..self.range.len();
        let bytes = socket.read(&mut self.bytes[self.range.end..])?;
        self.range.end += bytes;
        match bytes {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a frame is to an address that means the host itself where it is given to a socket: passt, before it looked at that, connects
/// to where it is told.
fn is_to_loopback(frame: &[u8]) -> bool {
    let Some((ethernet, packet)) = frame.split_at_checked(ETHERNET_BYTES) else {
        return false;
    };
    match ethernet[ETHERNET_BYTES - 2..] {
        [0x08, 0x00] => matches!(packet.get(16), Some(127 | 0)),
        [0x86, 0xdd] => packet
            .get(24..)
            .and_then(|to| to.first_chunk())
            .is_some_and(|to| {
                let to = Ipv6Addr::from_octets(*to);
                to.is_loopback() || to.is_unspecified() || to.to_ipv4_mapped().is_some()
            }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_to_the_hosts_own_loopback_are_lost() {
        let (mut other, link) = UnixStream::pair().unwrap();
        let link = Stream::new(link).unwrap();
        let v4 = |to: [u8; 4]| [&[0; 12][..], &[8, 0], &[0; 16], &to, &[0; 8]].concat();
        let v6 = |to: &str| {
            let to: Ipv6Addr = to.parse().unwrap();
            [&[0; 12][..], &[0x86, 0xdd], &[0; 24], &to.octets(), &[0; 8]].concat()
        };
        let lost = [
            v4([127, 0, 0, 1]),
            v4([127, 255, 0, 9]),
            v4([0; 4]),
            v6("::1"),
            v6("::"),
            v6("::ffff:127.0.0.1"),
        ];
        let arp = [&[0; 12][..], &[8, 6], &[127; 28]].concat();
        let sent = [v4([192, 0, 2, 1]), v6("2001:db8::1"), v6("ff02::2"), arp];
        for content in &lost {
            let error = link.send(content).unwrap_err();
            assert_ne!(error.kind(), ErrorKind::WouldBlock);
        }
        for content in &sent {
            link.send(content).unwrap();
        }
        drop(link);
        let mut arrived = Vec::new();
        other.read_to_end(&mut arrived).unwrap();
        let expected: Vec<_> = sent.iter().flat_map(|content| framed(content)).collect();
        assert_eq!(arrived, expected);
    }

    fn framed(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length, content].concat()
    }

    #[test]
    fn frames_arrive_as_they_were_sent_however_the_stream_is_cut() {
        let (mut other, link) = UnixStream::pair().unwrap();
        let link = Stream::new(link).unwrap();
        let mut frame = vec![1; FRAME_BYTES];
        let sent = [vec![2; 60], vec![3; 65000], vec![], vec![4; 14]];
        let bytes: Vec<_> = sent.iter().flat_map(|content| framed(content)).collect();
        let mut arrived = Vec::new();
        for part in bytes.chunks(999) {
            other.write_all(part).unwrap();
            loop {
                match link.receive(&mut frame) {
                    Ok(bytes) => arrived.push(frame[..bytes].to_vec()),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
        assert_eq!(arrived, sent);
        drop(other);
        let error = link.receive(&mut frame).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn frame_that_nobody_could_hold_is_refused() {
        let (mut other, link) = UnixStream::pair().unwrap();
        let link = Stream::new(link).unwrap();
        other.write_all(&[0xff; 100]).unwrap();
        let error = link.receive(&mut [0; FRAME_BYTES]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn frame_that_the_stream_has_no_room_for_goes_on_where_it_stopped() {
        let (mut other, link) = UnixStream::pair().unwrap();
        let link = Stream::new(link).unwrap();
        let mut expected = Vec::new();
        let mut arrived = Vec::new();
        let mut room = vec![0; 100_000];
        for number in 0..50 {
            let content = vec![number; 30_000];
            expected.extend(framed(&content));
            while let Err(error) = link.send(&content) {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                let bytes = other.read(&mut room).unwrap();
                arrived.extend_from_slice(&room[..bytes]);
            }
        }
        drop(link);
        other.read_to_end(&mut arrived).unwrap();
        assert!(arrived == expected);
    }
}

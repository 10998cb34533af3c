//! The frames between client and agent: type, length, payload. Encoding, and decoding from bytes that arrive in
//! any pieces and may be anything.

use anyhow::{Result, bail, ensure};

use super::spec::{HEADER_BYTES, PAYLOAD_MAX_BYTES};

/// One stream of bytes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input, where it is no terminal.
    Input,
    /// Standard output, where it is no terminal.
    Output,
    /// Standard error, where it is no terminal.
    Error,
    /// The terminal, both ways, of those of the three that are one.
    Terminal,
}

/// One message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the agent: run this command (an encoded `Command`).
    Start(Vec<u8>),
    /// From the agent: the command is being executed; from here on it is never repeated.
    Started,
    /// Bytes of a stream, within the credit given for it.
    Chunk(Stream, Vec<u8>),
    /// To the agent: no more input, or nobody reads this output any more.
    End(Stream),
    /// The receiver of a stream has passed on so many bytes.
    Credit(Stream, u32),
    /// To the agent: deliver this signal.
    Signal(u8),
    /// To the agent: the terminal has this many rows and columns.
    Resize(u16, u16),
    /// To the agent: answer, if you live.
    Ping,
    /// From the agent: an answer.
    Pong,
    /// From the agent, last: the command's exit code, 128 + n for signal n.
    Exit(u8),
}

impl Stream {
    const ALL: [Stream; 4] = [
        Stream::Input,
        Stream::Output,
        Stream::Error,
        Stream::Terminal,
    ];

    fn code(self) -> u8 {
        match self {
            Stream::Input => 0,
            Stream::Output => 1,
            Stream::Error => 2,
            Stream::Terminal => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self> {
        match Self::ALL.get(usize::from(code)) {
            Some(stream) => Ok(*stream),
            None => bail!("stream {code} is unknown"),
        }
    }
}

impl Frame {
    fn code(&self) -> u8 {
        match self {
            Frame::Start(_) => 1,
            Frame::Started => 2,
            Frame::Chunk(..) => 3,
            Frame::End(_) => 4,
            Frame::Credit(..) => 5,
            Frame::Signal(_) => 6,
            Frame::Resize(..) => 7,
            Frame::Ping => 8,
            Frame::Pong => 9,
            Frame::Exit(_) => 10,
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Frame::Start(bytes) => bytes.clone(),
            Frame::Started | Frame::Ping | Frame::Pong => Vec::new(),
            Frame::Chunk(stream, bytes) => [&[stream.code()], bytes.as_slice()].concat(),
            Frame::End(stream) => vec![stream.code()],
            Frame::Credit(stream, bytes) => {
                [&[stream.code()], bytes.to_le_bytes().as_slice()].concat()
            }
            Frame::Signal(number) | Frame::Exit(number) => vec![*number],
            Frame::Resize(rows, columns) => [rows.to_le_bytes(), columns.to_le_bytes()].concat(),
        }
    }

    /// The frame as bytes; fails if its payload is over the limit.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let payload = self.payload();
        ensure!(
            payload.len() <= PAYLOAD_MAX_BYTES,
            "arguments and environment are over {PAYLOAD_MAX_BYTES} bytes"
        );
        let length = u32::try_from(payload.len())?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.push(self.code());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    fn parse(code: u8, payload: &[u8]) -> Result<Self> {
        Ok(match (code, payload) {
            (1, bytes) => Frame::Start(bytes.to_vec()),
            (2, []) => Frame::Started,
            (3, [stream, bytes @ ..]) => Frame::Chunk(Stream::from_code(*stream)?, bytes.to_vec()),
            (4, [stream]) => Frame::End(Stream::from_code(*stream)?),
            (5, [stream, a, b, c, d]) => Frame::Credit(
                Stream::from_code(*stream)?,
                u32::from_le_bytes([*a, *b, *c, *d]),
            ),
            (6, [number]) => Frame::Signal(*number),
            (7, [a, b, c, d]) => {
                Frame::Resize(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))
            }
            (8, []) => Frame::Ping,
            (9, []) => Frame::Pong,
            (10, [number]) => Frame::Exit(*number),
            _ => bail!("no frame has type {code} and {} bytes", payload.len()),
        })
    }
}

/// Turns bytes as they arrive into frames.
#[derive(Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more bytes have come. After an error the stream is of no use.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [code, length @ ..] = *header;
        let length = usize::try_from(u32::from_le_bytes(length))?;
        ensure!(length <= PAYLOAD_MAX_BYTES, "a frame claims {length} bytes");
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::parse(code, payload)?;
        self.bytes.drain(..HEADER_BYTES + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_stream() -> impl Strategy<Value = Stream> {
        proptest::sample::select(Stream::ALL.to_vec())
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            any::<Vec<u8>>().prop_map(Frame::Start),
            Just(Frame::Started),
            (any_stream(), any::<Vec<u8>>())
                .prop_map(|(stream, bytes)| Frame::Chunk(stream, bytes)),
            any_stream().prop_map(Frame::End),
            (any_stream(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit(stream, bytes)),
            any::<u8>().prop_map(Frame::Signal),
            any::<(u16, u16)>().prop_map(|(rows, columns)| Frame::Resize(rows, columns)),
            Just(Frame::Ping),
            Just(Frame::Pong),
            any::<u8>().prop_map(Frame::Exit),
        ]
    }

    proptest! {
        #[test]
        fn frames_cut_anywhere_arrive_whole(frames in proptest::collection::vec(any_frame(), 0..6), piece in 1usize..40) {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                decoder.push(part);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn decoder_of_any_bytes_never_panics(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn frame_claiming_too_much_is_refused_before_it_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&[1, 0xff, 0xff, 0xff, 0x7f]);
        assert!(decoder.next().is_err());
    }

    #[test]
    fn frame_of_unknown_type_or_stream_is_refused() {
        for bytes in [
            [99, 0, 0, 0, 0].as_slice(),
            &[4, 1, 0, 0, 0, 77],
            &[8, 1, 0, 0, 0, 0],
        ] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.next().is_err(), "{bytes:?}");
        }
    }
}

//! Streaming decompression, the format told from the first bytes.
//!
//! Called by the sources for layers and archives, on the thread of the import. Every format may hold several members
//! or frames one after the other; windows are bounded, so that a stream cannot choose how much memory it costs.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Base-2 logarithm of the largest zstd window taken, in bytes: what the zstd program takes without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Memory an xz stream may claim, in bytes; `xz -9` needs 65 MiB.
const XZ_MEMORY_BYTES: u64 = 128 << 20;

/// Bytes read at once from the compressed side.
const INPUT_BUFFER_BYTES: usize = 128 * 1024;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// The .xz format.
    Xz,
    /// RFC 8878, skippable frames included.
    Zstd,
}

impl Compression {
    /// Told from the first bytes of a stream, six of them if there are as many.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// What `reader` holds, decompressed, and how it was compressed.
///
/// # Errors
/// If the first bytes cannot be read, or a decoder cannot be made.
pub fn decompress<'a>(reader: impl Read + 'a) -> Result<(Compression, Box<dyn Read + 'a>)> {
    let mut input = BufReader::with_capacity(INPUT_BUFFER_BYTES, reader);
    let compression = Compression::of(fill(&mut input).context("read the first bytes")?);
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::Plain => Box::new(input),
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(input)),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)
                .context("make an xz decoder")?;
            Box::new(XzDecoder::new_stream(input, stream))
        }
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(input).context("make a zstd decoder")?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .context("bound the zstd window")?;
            Box::new(decoder)
        }
    };
    Ok((compression, plain))
}

fn fill<R: Read>(input: &mut BufReader<R>) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Ok(_) => return Ok(input.buffer()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn members(encode: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = encode(b"first ");
        bytes.extend(encode(b"second"));
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        frame.extend(zstd::encode_all(bytes, 1).unwrap());
        frame
    }

    #[test]
    fn members_one_after_the_other_are_one_stream() {
        for (expected, bytes) in [
            (Compression::Plain, members(<[u8]>::to_vec)),
            (Compression::Gzip, members(gzip)),
            (Compression::Bzip2, members(bzip2)),
            (Compression::Xz, members(xz)),
            (Compression::Zstd, members(zstd)),
        ] {
            let (compression, mut reader) = decompress(&bytes[..]).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!((compression, text.as_str()), (expected, "first second"));
        }
    }

    #[test]
    fn stream_cut_short_is_an_error() {
        for encode in [gzip, bzip2, xz, zstd] {
            let bytes = encode(&vec![7; 100_000]);
            let (_, mut reader) = decompress(&bytes[..bytes.len() - 3]).unwrap();
            assert!(reader.read_to_end(&mut Vec::new()).is_err());
        }
    }
}

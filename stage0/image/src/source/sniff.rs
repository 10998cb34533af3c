//! What a tar is for, told by its first entry; and whether a stream is a tar at all.
//!
//! Called by `source::open` on the decompressed stream, of which it reads as little as it can.

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

use super::archive::{BLOCK_BYTES, checksum_fits};

/// Headers looked at before the first entry proper.
const MAX_HEADERS: usize = 16;

/// Bytes of extended headers skipped before the first entry proper.
const MAX_SKIPPED_BYTES: u64 = 1 << 20;

/// What the first entry lets expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// Parts of a layered image: a layout or a `docker save` archive.
    Parts,
    /// An App Container Image.
    Aci,
    /// A root file system.
    RootFs,
}

/// Tells what the tar in `reader`, called `object`, is.
///
/// # Errors
/// If it is no tar, or ends before its first entry.
pub fn sniff(mut reader: impl Read, object: &str) -> Result<Guess> {
    for _ in 0..MAX_HEADERS {
        let mut block = [0; BLOCK_BYTES];
        read_block(&mut reader, &mut block)
            .with_context(|| format!("read the first entry of {object}"))?;
        if block == [0; BLOCK_BYTES] {
            bail!("{object} is an empty archive");
        }
        if !checksum_fits(&block) {
            bail!("{object} is no image: neither a folder nor a tar archive, compressed or not");
        }
        let header = Header::from_byte_slice(&block);
        let size = header
            .entry_size()
            .with_context(|| format!("read the first entry of {object}"))?;
        let path = header.path_bytes();
        match header.entry_type() {
            EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink => {
                skip(&mut reader, size)
                    .with_context(|| format!("read an extended header of {object}"))?;
            }
            EntryType::Directory if first_part(&path).is_empty() => {}
            _ => return Ok(judge(&path)),
        }
    }
    Ok(Guess::RootFs)
}

fn judge(path: &[u8]) -> Guess {
    match first_part(path) {
        b"oci-layout" | b"index.json" | b"manifest.json" | b"repositories" | b"blobs" => {
            Guess::Parts
        }
        b"manifest" | b"rootfs" => Guess::Aci,
        part if part.len() >= 64 && part[..64].iter().all(u8::is_ascii_hexdigit) => Guess::Parts,
        _ => Guess::RootFs,
    }
}

fn first_part(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'/')
        .find(|part| !part.is_empty() && *part != b".")
        .unwrap_or_default()
}

fn skip(reader: &mut impl Read, size: u64) -> io::Result<()> {
    if size > MAX_SKIPPED_BYTES {
        return Err(io::Error::other(format!("it has {size} bytes")));
    }
    let padded = size.next_multiple_of(BLOCK_BYTES as u64);
    io::copy(&mut reader.take(padded), &mut io::sink()).map(drop)
}

fn read_block(reader: &mut impl Read, block: &mut [u8]) -> io::Result<()> {
    reader
        .read_exact(block)
        .map_err(|error| match error.kind() {
            // A decoder says more about a truncated stream than read_exact does.
            io::ErrorKind::UnexpectedEof if error.get_ref().is_none() => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ends too early: truncated, or no archive",
            ),
            _ => error,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(name: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, "./", io::empty()).unwrap();
        let mut header = Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn tar_is_told_by_its_first_entry() {
        let layer = format!("{}/layer.tar", "a1".repeat(32));
        for (name, guess) in [
            ("blobs/sha256/x", Guess::Parts),
            (layer.as_str(), Guess::Parts),
            ("rootfs/bin", Guess::Aci),
            ("manifest", Guess::Aci),
            ("bin/sh", Guess::RootFs),
            ("manifests", Guess::RootFs),
        ] {
            assert_eq!(sniff(&tar_of(name)[..], "x").unwrap(), guess, "{name}");
        }
    }

    #[test]
    fn stream_that_is_no_tar_is_refused() {
        for bytes in [&b""[..], b"#!/bin/sh\n", &[7; 2048], &[0; 1024]] {
            assert!(sniff(bytes, "x").is_err());
        }
    }
}

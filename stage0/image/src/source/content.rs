//! Where the bytes of a layer come from: a run of bytes in a file, or podman's storage, which keeps them in pieces.
//!
//! Made by the sources of layered images, read once by `layers`, on the thread of the import.

use std::io::Read;

use super::storage::Split;
use crate::blob::Blob;

/// The tar of a layer, compressed or not.
pub enum Content {
    /// In one piece.
    Blob(Blob),
    /// Put together of headers and files; never compressed.
    Split(Split),
}

impl Content {
    /// Bytes that it claims to have; 0 if nobody says.
    pub fn length(&self) -> u64 {
        match self {
            Self::Blob(blob) => blob.length(),
            Self::Split(split) => split.length(),
        }
    }

    /// What it is called in errors.
    pub fn object(&self) -> &str {
        match self {
            Self::Blob(blob) => blob.object(),
            Self::Split(split) => split.object(),
        }
    }

    /// A reader from the first byte on.
    pub fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Self::Blob(blob) => Box::new(blob.reader()),
            Self::Split(split) => Box::new(split.reader()),
        }
    }
}

impl From<Blob> for Content {
    fn from(blob: Blob) -> Self {
        Self::Blob(blob)
    }
}

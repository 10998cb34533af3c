//! The one layer of an image that leaves the store, in a file without a name: its digest stands before it in what is written.

use std::fs::File;
use std::io::{BufWriter, Seek, Write};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::Builder;

use super::files::Files;
use super::sum::Sum;
use super::tar::{Form, append};
use crate::digest::Digest;

/// The layer.
pub struct Layer {
    /// At its beginning.
    pub file: File,
    /// Of the file.
    pub digest: Digest,
    /// Of the file.
    pub bytes: u64,
    /// The digest of the tar, uncompressed.
    pub diff_id: Digest,
}

impl Layer {
    /// A layer compressed by gzip.
    ///
    /// # Errors
    /// If the image is damaged, or the file cannot be written.
    pub fn compressed(files: &Files, spool: File) -> Result<Self> {
        let below = Sum::new(BufWriter::new(spool));
        let encoder = GzEncoder::new(below, Compression::fast());
        let (encoder, diff_id, _) = write(files, encoder)?;
        let (file, digest, bytes) = encoder.finish().context("compress the layer")?.finish();
        Ok(Self {
            file: rewound(file)?,
            digest,
            bytes,
            diff_id,
        })
    }

    /// A layer as it is.
    ///
    /// # Errors
    /// As for [`compressed`](Self::compressed).
    pub fn plain(files: &Files, spool: File) -> Result<Self> {
        let (file, digest, bytes) = write(files, BufWriter::new(spool))?;
        Ok(Self {
            file: rewound(file)?,
            digest: digest.clone(),
            bytes,
            diff_id: digest,
        })
    }
}

fn write<W: Write>(files: &Files, to: W) -> Result<(W, Digest, u64)> {
    let mut tar = Builder::new(Sum::new(to));
    append(files, Form::Layer, &mut tar)?.tell();
    Ok(tar.into_inner().context("end the layer")?.finish())
}

fn rewound(file: BufWriter<File>) -> Result<File> {
    let mut file = file
        .into_inner()
        .map_err(|error| error.into_error())
        .context("write the layer")?;
    file.rewind().context("read the layer")?;
    Ok(file)
}

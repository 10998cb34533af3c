//! A run of bytes in a file: a blob of a layout, an entry of an archive, a whole archive.
//!
//! Made by the sources, read on the thread of the import. Reads at offsets, so that many readers share one file.
//! Knows its own name, so that a short read says what ended too early.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::libc;

/// A run of bytes in an open file.
#[derive(Clone)]
pub struct Blob {
    file: Arc<File>,
    offset: u64,
    length: u64,
    object: String,
}

impl Blob {
    /// The whole of the regular file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened, or is a device, a pipe or a folder.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        Self::of_file(file, path.display().to_string())
    }

    /// The whole of `file`, called `object` in errors.
    ///
    /// # Errors
    /// If it is not a regular file.
    pub fn of_file(file: File, object: String) -> Result<Self> {
        let metadata = file
            .metadata()
            .with_context(|| format!("look at {object}"))?;
        if !metadata.is_file() {
            bail!("{object} is not a regular file");
        }
        Ok(Self {
            file: Arc::new(file),
            offset: 0,
            length: metadata.len(),
            object,
        })
    }

    /// `length` bytes of this blob from `offset` on, called `name` in errors.
    pub fn part(&self, offset: u64, length: u64, name: &str) -> Self {
        Self {
            file: Arc::clone(&self.file),
            offset: self.offset.saturating_add(offset),
            length,
            object: format!("{name} of {}", self.object),
        }
    }

    /// Bytes that the blob claims to have.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Of the whole file, as it is now.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn metadata(&self) -> Result<Metadata> {
        self.file
            .metadata()
            .with_context(|| format!("look at {}", self.object))
    }

    /// What the blob is called in errors.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// A reader from the first byte on.
    pub fn reader(&self) -> BlobReader<'_> {
        BlobReader {
            blob: self,
            position: 0,
        }
    }

    /// Fills `buffer` from `offset` on as far as the blob goes; the bytes filled.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.length.saturating_sub(offset);
        let wanted = buffer
            .len()
            .min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut filled = 0;
        while filled < wanted {
            let start = self
                .offset
                .saturating_add(offset)
                .saturating_add(filled as u64);
            match self.file.read_at(&mut buffer[filled..wanted], start) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// All bytes.
    ///
    /// # Errors
    /// If there are more than `limit_bytes`, or they cannot be read.
    pub fn read_all(&self, limit_bytes: u64) -> Result<Vec<u8>> {
        if self.length > limit_bytes {
            bail!(
                "{} has {} bytes, more than the {limit_bytes} allowed",
                self.object,
                self.length
            );
        }
        let mut bytes = Vec::new();
        self.reader()
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {}", self.object))?;
        Ok(bytes)
    }
}

/// Reads a blob once; an end before the claimed length is an error.
pub struct BlobReader<'a> {
    blob: &'a Blob,
    position: u64,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.blob.length {
            return Ok(0);
        }
        let count = self.blob.read_at(buffer, self.position)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} is truncated: it ends after {} of {} bytes",
                    self.blob.object, self.position, self.blob.length
                ),
            ));
        }
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_beyond_the_end_names_what_is_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        std::fs::write(&path, [1; 100]).unwrap();
        let part = Blob::open(&path).unwrap().part(90, 20, "layer.tar");
        let error = part.read_all(1000).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("layer.tar") && text.contains("10 of 20"),
            "{text}"
        );
    }

    #[test]
    fn pipe_and_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Blob::open(&pipe).is_err());
        assert!(Blob::open(folder.path()).is_err());
    }
}

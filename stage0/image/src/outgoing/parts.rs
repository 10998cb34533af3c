//! Where the parts of an image go, by name: a folder, or a tar. The counterpart of `source::files`.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tar::{Builder, Header};

use crate::digest::{Algorithm, Digest};

/// The place.
pub enum Parts<'a> {
    /// A folder that is there.
    Folder(PathBuf),
    /// A tar.
    Archive(Builder<&'a mut dyn Write>),
}

impl<'a> Parts<'a> {
    /// A new folder.
    ///
    /// # Errors
    /// If it cannot be made, or holds something.
    pub fn folder(path: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.with_context(|| format!("make folder {}", path.display()))?;
        Ok(Self::Folder(path.to_path_buf()))
    }

    /// A tar on its way to `to`.
    pub fn archive(to: &'a mut dyn Write) -> Self {
        Self::Archive(Builder::new(to))
    }

    /// Adds the part `name`, a clean relative path, of `length` bytes.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn add(&mut self, name: &str, length: u64, mut data: impl Read) -> Result<()> {
        let added = match self {
            Self::Folder(folder) => write_file(&folder.join(name), &mut data),
            Self::Archive(tar) => {
                let mut header = Header::new_ustar();
                header.set_mode(0o644);
                header.set_size(length);
                tar.append_data(&mut header, name, data)
            }
        };
        added.with_context(|| format!("write {name}"))
    }

    /// Adds `bytes` as a blob of an OCI layout.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add_blob(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        self.add(&digest.blob_path(), bytes.len() as u64, bytes)?;
        Ok(digest)
    }

    /// Ends the archive; makes the folder durable.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Folder(folder) => File::open(&folder).and_then(|folder| folder.sync_all()),
            Self::Archive(mut tar) => tar.finish().and_then(|()| tar.get_mut().flush()),
        }
        .context("end the image")
    }
}

fn write_file(path: &Path, data: &mut impl Read) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::create_new(path)?;
    io::copy(data, &mut file)?;
    file.sync_all()
}

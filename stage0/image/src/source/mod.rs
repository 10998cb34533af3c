//! Where images come from: paths of the host, told apart by content and never by name.
//!
//! Called by the store, on the thread of the import. A source reads and checks; where the files go is the writer's
//! part. Nothing is unpacked: archives are read in place, a compressed archive of parts by way of an unlinked file.

mod archive;
pub(crate) mod content;
pub(crate) mod convert;
mod docker;
pub(crate) mod document;
mod files;
pub(crate) mod layers;
pub(crate) mod layout;
mod meter;
pub(crate) mod names;
pub(crate) mod select;
mod sniff;
pub(crate) mod storage;
mod tarball;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use contract::ImageManifest;

use crate::Limits;
use crate::blob::Blob;
use crate::decompress::{Compression, decompress};
use archive::Archive;
use files::Files;
use sniff::{Guess, sniff};

pub use layers::{Layer, Layers};
pub use meter::{Meter, Progress};
pub use tarball::Tarball;

/// What a source may be, for who takes some alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An OCI layout, in a folder.
    Layout,
    /// An OCI layout, in a tar.
    LayoutArchive,
    /// An archive of `docker save`.
    DockerArchive,
    /// A root file system, in a tar.
    RootFsArchive,
}

/// What is asked of a source.
pub struct Wanted<'a> {
    /// Forms that are not taken, each with the reason.
    pub barred: &'a [(Form, String)],
    /// As OCI spells it: `amd64`, `arm64`.
    pub architecture: &'a str,
    /// Chooses among several images, and names one that has no name.
    pub name: Option<&'a str>,
    /// Names an image that has no name at all.
    pub stem: &'a str,
}

impl Wanted<'_> {
    fn check(&self, form: Form) -> Result<()> {
        match self.barred.iter().find(|(barred, _)| *barred == form) {
            Some((_, reason)) => bail!("{reason}"),
            None => Ok(()),
        }
    }
}

/// What a path turned out to hold.
pub enum Source {
    /// An OCI or docker image.
    Layers(Box<Layers>),
    /// An ACI or a root file system in a tar.
    Tarball(Tarball),
    /// A root file system as a folder.
    Folder(PathBuf),
}

/// Tells what lies at `path` and reads its descriptions, all digests of these checked.
///
/// `spool` makes an unlinked file, used for at most `spool_bytes`, where parts cannot be read in place.
///
/// # Errors
/// If there is no image for this host, or a description is missing, altered or damaged.
pub fn open(
    path: &Path,
    wanted: &Wanted<'_>,
    spool: impl FnOnce() -> Result<File>,
    spool_bytes: u64,
) -> Result<Source> {
    let metadata = path
        .metadata()
        .with_context(|| format!("look at image {}", path.display()))?;
    if metadata.is_dir() {
        return open_folder(path, wanted);
    }
    open_blob(Blob::open(path)?, wanted, spool, spool_bytes)
}

/// As [`open`] does, of an archive that is open.
///
/// # Errors
/// As for [`open`].
pub fn open_blob(
    blob: Blob,
    wanted: &Wanted<'_>,
    spool: impl FnOnce() -> Result<File>,
    spool_bytes: u64,
) -> Result<Source> {
    let (compression, plain) = decompress(blob.reader())?;
    match sniff(plain, blob.object())? {
        Guess::Aci => Ok(Source::Tarball(Tarball { blob, is_aci: true })),
        Guess::RootFs => root_fs(blob, wanted),
        Guess::Parts => {
            let archive = if compression == Compression::Plain {
                blob.clone()
            } else {
                let (_, plain) = decompress(blob.reader())?;
                spooled(plain, spool()?, blob.object(), spool_bytes)?
            };
            let files = Files::Archive(Archive::index(archive)?);
            match open_parts(&files, wanted)? {
                Some(layers) => Ok(Source::Layers(Box::new(layers))),
                None => root_fs(blob, wanted),
            }
        }
    }
}

fn root_fs(blob: Blob, wanted: &Wanted<'_>) -> Result<Source> {
    wanted.check(Form::RootFsArchive)?;
    Ok(Source::Tarball(Tarball {
        blob,
        is_aci: false,
    }))
}

/// The manifest of the ACI at `path`; `None` if it is something else.
///
/// # Errors
/// If it cannot be read, is for another host, or exceeds a limit.
pub fn aci_manifest(
    path: &Path,
    wanted: &Wanted<'_>,
    limits: &Limits,
) -> Result<Option<ImageManifest>> {
    if path.is_dir() {
        return Ok(None);
    }
    let blob = Blob::open(path)?;
    let is_aci = {
        let (_, plain) = decompress(blob.reader())?;
        sniff(plain, blob.object())? == Guess::Aci
    };
    Tarball { blob, is_aci }.manifest(wanted, limits)
}

fn open_folder(path: &Path, wanted: &Wanted<'_>) -> Result<Source> {
    let files = Files::Folder(path.to_path_buf());
    if files.has(layout::MARK) && files.has(layout::INDEX) {
        wanted.check(Form::Layout)?;
        return Ok(Source::Layers(Box::new(layout::open(&files, wanted)?)));
    }
    if path.join("manifest").is_file() && path.join("rootfs").is_dir() {
        bail!(
            "{} is an unpacked ACI; give its folder rootfs, or pack it: tar -C {0} -cf IMAGE.aci manifest rootfs",
            path.display()
        );
    }
    Ok(Source::Folder(path.to_path_buf()))
}

fn open_parts(files: &Files, wanted: &Wanted<'_>) -> Result<Option<Layers>> {
    if files.has(layout::MARK) && files.has(layout::INDEX) {
        wanted.check(Form::LayoutArchive)?;
        return layout::open(files, wanted).map(Some);
    }
    if files.has(docker::MANIFEST) {
        wanted.check(Form::DockerArchive)?;
        return docker::open(files, wanted).map(Some);
    }
    Ok(None)
}

/// What `stream` yields, in `file`, called `object` in errors: parts of an image are read in any order, a stream only in one.
///
/// # Errors
/// If there are more than `limit_bytes`, or they cannot be read or written.
pub fn spooled(stream: impl Read, file: File, object: &str, limit_bytes: u64) -> Result<Blob> {
    let mut stream = stream.take(limit_bytes.saturating_add(1));
    let copied = io::copy(&mut stream, &mut &file).with_context(|| format!("read {object}"))?;
    if copied > limit_bytes {
        bail!(
            "{object} has more than {limit_bytes} bytes, the most that it may take (--max-image-size, max-store-size)"
        );
    }
    Blob::of_file(file, object.to_owned())
}

//! A whole image in one tar: an ACI, or a bare root file system.
//!
//! Made by `source::open`, run by the store on the thread of the import. Read once, decompressed, hashed and merged on
//! the way. appc specification 0.8.11, "App Container Image".

use std::io::Read;

use anyhow::{Context, Result, bail};
use contract::ImageManifest;
use contract::image::Label;

use super::Wanted;
use super::convert::{appc_architecture, bare};
use super::document::{self, MAX_JSON_BYTES};
use super::meter::Meter;
use crate::blob::Blob;
use crate::decompress::decompress;
use crate::digest::{Algorithm, Digest, Hashing};
use crate::ending::Ending;
use crate::layer::Archive;
use crate::tree::clean;
use crate::{Limits, Writer};

/// Where an ACI keeps the description.
const MANIFEST: &[u8] = b"manifest";
/// Where an ACI keeps the files.
const ROOTFS: &str = "rootfs";

/// Why a tar that begins like an ACI is none.
const NO_MANIFEST: &str = "it has a folder rootfs but no manifest";
/// Paths in a whitelist.
const MAX_WHITELIST: usize = 256 << 10;

/// A tar that holds the files of one image.
pub struct Tarball {
    /// Compressed or not.
    pub blob: Blob,
    /// Whether the files lie under `rootfs/` beside a manifest.
    pub is_aci: bool,
}

/// What merging a tarball found out.
pub struct Merged {
    /// SHA-512 of the uncompressed tar.
    pub digest: Digest,
    /// Its own, or made up for a bare root file system.
    pub manifest: ImageManifest,
    /// Size of the uncompressed tar.
    pub tar_bytes: u64,
}

impl Tarball {
    /// The manifest of an ACI, read ahead of its files, which lie above those of its dependencies; `None` of a bare root
    /// file system.
    ///
    /// # Errors
    /// If there is none, it is damaged or for another host, or a limit is exceeded before it.
    pub fn manifest(&self, wanted: &Wanted<'_>, limits: &Limits) -> Result<Option<ImageManifest>> {
        if !self.is_aci {
            return Ok(None);
        }
        let object = self.blob.object();
        let (_, plain) =
            decompress(self.blob.reader()).with_context(|| format!("decompress {object}"))?;
        find_manifest(plain, wanted, limits)
            .map(Some)
            .with_context(|| format!("read {object}"))
    }

    /// Puts the files into `writer`.
    ///
    /// # Errors
    /// If the tar is damaged, truncated, for another host, or exceeds a limit.
    pub fn write(
        &self,
        writer: &mut Writer,
        wanted: &Wanted<'_>,
        meter: &Meter<'_>,
    ) -> Result<Merged> {
        let object = self.blob.object();
        meter.begin(1, 1, self.blob.length());
        let (_, plain) = decompress(meter.watch(self.blob.reader()))
            .with_context(|| format!("decompress {object}"))?;
        let mut plain = Hashing::new(Ending::new(plain), Algorithm::Sha512);
        let manifest = if self.is_aci {
            self.merge_aci(writer, &mut plain, wanted)
        } else {
            merge_bare(writer, &mut plain, wanted)
        };
        let manifest = manifest.with_context(|| format!("read {object}"))?;
        let (digest, ending) = plain
            .finish_with()
            .with_context(|| format!("read the end of {object}"))?;
        if !ending.is_marked() {
            bail!("{object} is truncated: the archive's end mark is missing");
        }
        Ok(Merged {
            digest,
            manifest,
            tar_bytes: ending.length(),
        })
    }

    fn merge_aci(
        &self,
        writer: &mut Writer,
        plain: impl Read,
        wanted: &Wanted<'_>,
    ) -> Result<ImageManifest> {
        let mut manifest = None;
        writer.apply_archive(plain, ROOTFS, &mut |path, content| {
            if path != MANIFEST {
                return Ok(());
            }
            if manifest.is_some() {
                bail!("the manifest is there twice");
            }
            manifest = Some(read_manifest(content, wanted)?);
            Ok(())
        })?;
        manifest.context(NO_MANIFEST)
    }
}

fn merge_bare(writer: &mut Writer, plain: impl Read, wanted: &Wanted<'_>) -> Result<ImageManifest> {
    writer.apply_archive(plain, "", &mut |_, _| Ok(()))?;
    Ok(bare(
        wanted.name.unwrap_or(wanted.stem),
        wanted.architecture,
    ))
}

fn find_manifest(plain: impl Read, wanted: &Wanted<'_>, limits: &Limits) -> Result<ImageManifest> {
    let mut left = limits.input_bytes;
    let mut archive = Archive::new(plain, limits, &mut left);
    while let Some(member) = archive.next()? {
        if clean(&member.path)? == MANIFEST {
            return read_manifest(&mut archive.data(), wanted).context("manifest");
        }
    }
    bail!(NO_MANIFEST)
}

fn read_manifest(content: &mut dyn Read, wanted: &Wanted<'_>) -> Result<ImageManifest> {
    let mut bytes = Vec::new();
    content.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        bail!("it is larger than {MAX_JSON_BYTES} bytes");
    }
    let manifest: ImageManifest = document::parse(&bytes, "the manifest")?;
    check_labels(&manifest.labels, wanted.architecture)?;
    let listed = manifest.path_whitelist.len();
    if listed > MAX_WHITELIST {
        bail!("its path whitelist has {listed} paths, more than {MAX_WHITELIST}");
    }
    Ok(manifest)
}

fn check_labels(labels: &[Label], architecture: &str) -> Result<()> {
    let value = |name: &str, default: &'static str| {
        labels
            .iter()
            .find(|label| label.name == name)
            .map_or(default.to_owned(), |label| label.value.clone())
    };
    let here = appc_architecture(architecture);
    let (os, arch) = (
        value("os", "linux"),
        labels.iter().find(|label| label.name == "arch"),
    );
    if os != "linux" || arch.is_some_and(|label| label.value != here) {
        bail!(
            "the image is for {os}/{}, this host runs linux/{here}",
            arch.map_or("any", |label| label.value.as_str())
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_another_host_are_refused() {
        let label = |name: &str, value: &str| Label {
            name: name.into(),
            value: value.into(),
        };
        assert!(check_labels(&[], "amd64").is_ok());
        assert!(check_labels(&[label("arch", "aarch64")], "arm64").is_ok());
        let error = check_labels(&[label("arch", "aarch64")], "amd64")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("linux/aarch64") && error.contains("linux/amd64"),
            "{error}"
        );
        assert!(check_labels(&[label("os", "freebsd")], "amd64").is_err());
    }
}

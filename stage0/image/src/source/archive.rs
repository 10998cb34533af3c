//! The index of a tar archive: which entry lies where, so that blobs are read in place and nothing is unpacked.
//!
//! Built by the sources for archives that hold an image's parts (OCI layout, `docker save`), not for root file
//! systems. Bounded in entries, names and link hops. pax and GNU long names are known; sparse entries are not.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

use super::names::clean;
use crate::blob::Blob;

/// Size of a tar block in bytes.
pub(super) const BLOCK_BYTES: usize = 512;

/// Entries taken; a layout has one a blob and a few more.
const MAX_ENTRIES: usize = 16_384;

/// Bytes of one name or link target; with the number of entries it bounds the memory that an index takes.
const MAX_NAME_BYTES: usize = 1024;

/// Bytes of one pax header or GNU long name.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;

/// Links followed from one name.
const MAX_LINKS: usize = 8;

/// What an entry is, as far as the index cares.
enum Entry {
    File { offset: u64, length: u64 },
    Link(String),
}

/// The entries of an uncompressed tar.
pub struct Archive {
    blob: Blob,
    entries: HashMap<String, Entry>,
}

/// Names and sizes that extension headers give to the entry after them.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Archive {
    /// Reads the headers of the tar in `blob`.
    ///
    /// # Errors
    /// If a header is damaged or missing, or there are too many.
    pub fn index(blob: Blob) -> Result<Self> {
        let mut archive = Self {
            blob,
            entries: HashMap::new(),
        };
        let mut offset = 0;
        let mut extension = Extension::default();
        while let Some(header) = archive.header_at(offset)? {
            let start = offset + BLOCK_BYTES as u64;
            let size = match extension.size.take() {
                Some(size) => size,
                None => header
                    .entry_size()
                    .with_context(|| archive.at("read a size", offset))?,
            };
            if size > archive.blob.length().saturating_sub(start) {
                bail!(
                    "{} is truncated: it ends in the entry that begins at byte {offset}",
                    archive.blob.object()
                );
            }
            archive.take(&header, start, size, &mut extension)?;
            offset = start + size.next_multiple_of(BLOCK_BYTES as u64);
        }
        Ok(archive)
    }

    /// The header at `offset`; `None` at the end of the archive.
    fn header_at(&self, offset: u64) -> Result<Option<Header>> {
        let mut block = [0; BLOCK_BYTES];
        let count = self
            .blob
            .read_at(&mut block, offset)
            .with_context(|| self.at("read a header", offset))?;
        if count < BLOCK_BYTES {
            bail!(
                "{} is truncated: no entry and no end mark at byte {offset}",
                self.blob.object()
            );
        }
        if block == [0; BLOCK_BYTES] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        if !checksum_fits(&block) {
            bail!(
                "{} is damaged: no valid tar header at byte {offset}",
                self.blob.object()
            );
        }
        Ok(Some(header))
    }

    fn take(
        &mut self,
        header: &Header,
        start: u64,
        size: u64,
        extension: &mut Extension,
    ) -> Result<()> {
        match header.entry_type() {
            EntryType::XHeader => extension.read_pax(&self.extension_at(start, size)?),
            EntryType::GNULongName => extension.path = Some(text(&self.extension_at(start, size)?)),
            EntryType::GNULongLink => extension.link = Some(text(&self.extension_at(start, size)?)),
            EntryType::XGlobalHeader => {}
            kind => {
                let extension = std::mem::take(extension);
                let path = extension
                    .path
                    .unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned());
                let link = extension.link.or_else(|| {
                    let target = header.link_name_bytes()?;
                    Some(String::from_utf8_lossy(&target).into_owned())
                });
                self.add(kind, &path, link, start, size)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        kind: EntryType,
        path: &str,
        link: Option<String>,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let Some(path) = clean(path) else {
            bail!(
                "{} holds an entry outside itself: {path:?}",
                self.blob.object()
            );
        };
        let longest = path.len().max(link.as_ref().map_or(0, String::len));
        if longest > MAX_NAME_BYTES {
            bail!(
                "{} holds a name of {longest} bytes, more than {MAX_NAME_BYTES}",
                self.blob.object()
            );
        }
        let entry = match (kind, link) {
            (EntryType::Regular | EntryType::Continuous, _) => Entry::File { offset, length },
            (EntryType::Link, Some(target)) => Entry::Link(target),
            (EntryType::Symlink, Some(target)) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Entry::Link(format!("{folder}/{target}"))
            }
            _ => return Ok(()),
        };
        if self.entries.len() == MAX_ENTRIES {
            bail!("{} has more than {MAX_ENTRIES} entries", self.blob.object());
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    fn extension_at(&self, start: u64, size: u64) -> Result<Vec<u8>> {
        self.blob
            .part(start, size, "an extended header")
            .read_all(MAX_EXTENSION_BYTES)
    }

    fn at(&self, what: &str, offset: u64) -> String {
        format!("{what} at byte {offset} of {}", self.blob.object())
    }

    /// The regular file called `name`, links followed inside the archive.
    pub fn find(&self, name: &str) -> Option<Blob> {
        let mut path = clean(name)?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&path)? {
                Entry::File { offset, length } => {
                    return Some(self.blob.part(*offset, *length, name));
                }
                Entry::Link(target) => path = clean(target)?,
            }
        }
        None
    }

    /// The archive itself, for errors.
    pub fn object(&self) -> &str {
        self.blob.object()
    }
}

impl Extension {
    fn read_pax(&mut self, bytes: &[u8]) {
        for record in tar::PaxExtensions::new(bytes).flatten() {
            let (Ok(key), value) = (record.key(), text(record.value_bytes())) else {
                continue;
            };
            match key {
                "path" => self.path = Some(value),
                "linkpath" => self.link = Some(value),
                "size" => self.size = value.parse().ok(),
                _ => {}
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// Whether `block` is a tar header by its checksum (POSIX ustar, field `chksum`).
pub(super) fn checksum_fits(block: &[u8; BLOCK_BYTES]) -> bool {
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    Header::from_byte_slice(block)
        .cksum()
        .is_ok_and(|stored| stored == sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Result<Archive> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, &builder.into_inner().unwrap()).unwrap();
        Archive::index(Blob::of_file(file, "test.tar".into()).unwrap())
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str, text: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, text).unwrap();
    }

    fn symlink(builder: &mut tar::Builder<Vec<u8>>, name: &str, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn entry_with_long_name_is_found() {
        let name = format!("{}/layer.tar", "x".repeat(200));
        let archive = archive(|builder| file(builder, &name, b"hello")).unwrap();
        let blob = archive.find(&format!("./{name}")).unwrap();
        assert_eq!(blob.read_all(10).unwrap(), b"hello");
    }

    #[test]
    fn link_is_followed_but_not_in_circles_nor_out() {
        let archive = archive(|builder| {
            file(builder, "a/layer.tar", b"one");
            symlink(builder, "b/layer.tar", "../a/layer.tar");
            symlink(builder, "c", "c");
            symlink(builder, "d", "../../etc/passwd");
        })
        .unwrap();
        assert_eq!(
            archive.find("b/layer.tar").unwrap().read_all(9).unwrap(),
            b"one"
        );
        assert!(archive.find("c").is_none());
        assert!(archive.find("d").is_none());
    }

    #[test]
    fn archive_without_end_mark_is_truncated() {
        let file = tempfile::tempfile().unwrap();
        let blob = Blob::of_file(file, "empty.tar".into()).unwrap();
        let error = Archive::index(blob).err().unwrap().to_string();
        assert!(error.contains("empty.tar is truncated"), "{error}");
    }
}

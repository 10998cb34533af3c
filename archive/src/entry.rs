//! One entry of a tar, as its headers say it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use crate::sparse::SparseMap;

/// Extended attributes: names with values.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes of a name in a header.
const NAME_BYTES: usize = 100;
/// The largest size or time that eleven octal digits say.
const MAX_OCTAL_11: u64 = 0o777_7777_7777;
/// The largest id that seven octal digits say.
const MAX_OCTAL_7: u32 = 0o777_7777;

/// A file, folder, link or device.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its name in the archive.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits, set-id and sticky ones included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was last changed: seconds since 1970, and nanoseconds after them.
    pub mtime: (i64, u32),
    /// Its extended attributes.
    pub xattrs: &'a Xattrs,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file of this many bytes.
    File(u64),
    /// A file with holes; its data is what is between them.
    Sparse(&'a SparseMap),
    /// Another name of the entry that is called so.
    HardLink(&'a [u8]),
    /// A link to this.
    Symlink(&'a [u8]),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A folder.
    Directory,
    /// A named pipe.
    Fifo,
}

impl Entry<'_> {
    /// Appends it to `tar`; of a file, with what `data` yields, which is cut or filled up with zeros to its size.
    ///
    /// # Errors
    /// Those of either stream.
    pub fn append<W: Write>(&self, tar: &mut Builder<W>, data: impl Read) -> io::Result<()> {
        let records = self.records();
        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        tar.append_pax_extensions(records)?;
        let (map, size): (&[u8], _) = match self.kind {
            Kind::File(size) => (&[], size),
            Kind::Sparse(map) => (&map.text, map.stored),
            _ => (&[], 0),
        };
        let data = map.chain(data.chain(io::repeat(0)).take(size));
        tar.append(&self.header(map.len() as u64 + size)?, data)
    }

    fn target(&self) -> &[u8] {
        match self.kind {
            Kind::HardLink(target) | Kind::Symlink(target) => target,
            _ => b"",
        }
    }

    fn header(&self, size: u64) -> io::Result<Header> {
        let mut header = Header::new_ustar();
        header.set_entry_type(match self.kind {
            Kind::File(_) | Kind::Sparse(_) => EntryType::Regular,
            Kind::HardLink(_) => EntryType::Link,
            Kind::Symlink(_) => EntryType::Symlink,
            Kind::Character(..) => EntryType::Char,
            Kind::Block(..) => EntryType::Block,
            Kind::Directory => EntryType::Directory,
            Kind::Fifo => EntryType::Fifo,
        });
        let old = header.as_old_mut();
        // Longer ones are cut here, and whole in the records.
        for (field, name) in [
            (&mut old.name, self.path),
            (&mut old.linkname, self.target()),
        ] {
            let length = name.len().min(NAME_BYTES);
            field[..length].copy_from_slice(&name[..length]);
        }
        header.set_mode(self.mode);
        header.set_uid(self.uid.min(MAX_OCTAL_7).into());
        header.set_gid(self.gid.min(MAX_OCTAL_7).into());
        header.set_size(size.min(MAX_OCTAL_11));
        header.set_mtime(u64::try_from(self.mtime.0).map_or(0, |time| time.min(MAX_OCTAL_11)));
        if let Kind::Character(major, minor) | Kind::Block(major, minor) = self.kind {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        header.set_cksum();
        Ok(header)
    }

    /// What the header has no room for.
    fn records(&self) -> Vec<(String, Vec<u8>)> {
        let mut records = Vec::new();
        let mut add = |needed: bool, key: &str, value: &[u8]| {
            if needed {
                records.push((key.to_owned(), value.to_vec()));
            }
        };
        add(self.path.len() > NAME_BYTES, "path", self.path);
        add(self.target().len() > NAME_BYTES, "linkpath", self.target());
        let decimal = |number: u64| number.to_string().into_bytes();
        match self.kind {
            Kind::File(size) => add(size > MAX_OCTAL_11, "size", &decimal(size)),
            Kind::Sparse(map) => {
                let stored = map.text.len() as u64 + map.stored;
                add(stored > MAX_OCTAL_11, "size", &decimal(stored));
                add(true, "GNU.sparse.major", b"1");
                add(true, "GNU.sparse.minor", b"0");
                add(true, "GNU.sparse.name", self.path);
                add(true, "GNU.sparse.realsize", &decimal(map.size));
            }
            _ => {}
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            add(id > MAX_OCTAL_7, key, &decimal(id.into()));
        }
        let whole =
            self.mtime.1 == 0 && u64::try_from(self.mtime.0).is_ok_and(|time| time <= MAX_OCTAL_11);
        add(!whole, "mtime", time(self.mtime).as_bytes());
        for (name, value) in self.xattrs {
            // A name that is no text, or would end the record's key early, has no spelling in a record.
            if let Ok(name) = std::str::from_utf8(name)
                && !name.contains('=')
            {
                add(true, &format!("SCHILY.xattr.{name}"), value);
            }
        }
        records
    }
}

/// Seconds and the nanoseconds after them, as one decimal number.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        // Before 1970 the fraction counts the other way.
        (seconds, nanoseconds) => {
            let (whole, rest) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
            format!("-{whole}.{rest:09}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(entry: &Entry, data: &[u8]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        entry.append(&mut tar, data).expect("room in memory");
        tar.into_inner().expect("room in memory")
    }

    #[test]
    fn entry_whose_fields_are_too_short_is_read_back_whole() {
        let path = [b"d/".repeat(80), b"\xff".to_vec()].concat();
        let xattrs = Xattrs::from([(b"user.a".to_vec(), b"\0=".to_vec())]);
        let entry = Entry {
            path: &path,
            kind: Kind::File(6),
            mode: 0o4711,
            uid: 3_000_000,
            gid: 0,
            mtime: (-2, 500_000_000),
            xattrs: &xattrs,
        };
        let tar = appended(&entry, b"abc");
        let mut archive = tar::Archive::new(&*tar);
        let mut read = archive.entries().expect("a tar");
        let mut read = read.next().expect("an entry").expect("a good one");
        assert_eq!(&*read.path_bytes(), path);
        assert_eq!(read.header().mode().expect("a mode"), 0o4711);
        let records = read.pax_extensions().expect("records").expect("some");
        let records: Vec<_> = records
            .map(|record| record.expect("a good one"))
            .map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec()))
            .collect();
        let has = |key: &[u8], value: &[u8]| records.contains(&(key.to_vec(), value.to_vec()));
        assert!(has(b"uid", b"3000000") && has(b"mtime", b"-1.500000000"));
        assert!(!records.iter().any(|(key, _)| key == b"gid"));
        let mut content = Vec::new();
        read.read_to_end(&mut content).expect("data");
        assert_eq!(content, b"abc\0\0\0", "filled up to its size");
    }

    #[test]
    fn file_with_holes_is_its_map_and_its_data() {
        let entry = Entry {
            path: b"a",
            kind: Kind::Sparse(&SparseMap::new(10_000, &[(4096, 3)])),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (1, 0),
            xattrs: &Xattrs::new(),
        };
        let tar = appended(&entry, b"abcd");
        let mut archive = tar::Archive::new(&*tar);
        let mut read = archive.entries().expect("a tar");
        let mut read = read.next().expect("an entry").expect("a good one");
        assert_eq!(read.header().size().expect("a size"), 512 + 3);
        let mut content = Vec::new();
        read.read_to_end(&mut content).expect("data");
        assert_eq!(&content[512..], b"abc");
    }

    #[test]
    fn entry_that_fits_its_header_has_no_records() {
        let entry = Entry {
            path: b"a",
            kind: Kind::Symlink(b"b"),
            mode: 0o777,
            uid: 0,
            gid: 0,
            mtime: (1, 0),
            xattrs: &Xattrs::new(),
        };
        let tar = appended(&entry, b"");
        assert_eq!(tar.len(), 3 * 512, "one header and the end");
    }

    #[test]
    fn time_before_1970_counts_its_fraction_backwards() {
        assert_eq!(time((-2, 500_000_000)), "-1.500000000");
        assert_eq!(time((-1, 1)), "-0.999999999");
        assert_eq!(
            (time((-7, 0)), time((7, 5))),
            ("-7".into(), "7.000000005".into())
        );
    }
}

//! Sparse files in tars: GNU's old form, and PAX forms 0.0, 0.1 and 1.0. Turns each into a checked list of
//! extents. Used by the tar reader.

use std::io::Read;

use anyhow::{Context, Result, ensure};

use super::numbers;
use super::pax::decimal;
use crate::erofs::Extent;

/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Size of one piece's entry in a GNU header: offset and length, 12 bytes each.
const GNU_ENTRY: usize = 24;
/// Entries in an extension block of the old form.
const GNU_EXTENSION_ENTRIES: usize = 21;

/// What a sparse file's header says.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// Size with the holes in bytes.
    pub(super) size: Option<u64>,
    pub(super) extents: Vec<Extent>,
    /// PAX form 1.0: the map stands before the data.
    pub(super) map_in_data: bool,
    /// An offset of form 0.0 that waits for its length.
    offset: Option<u64>,
}

impl Sparse {
    /// Takes one `GNU.sparse.*` record of an extended header.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8], limit: usize) -> Result<()> {
        let number = || decimal(value).context("sparse file's header is damaged");
        match key {
            b"size" | b"realsize" => self.size = Some(number()?),
            b"major" => self.map_in_data = number()? == 1,
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self
                    .offset
                    .take()
                    .context("sparse file's header is damaged")?;
                self.add(offset, number()?, limit)?;
            }
            b"map" => self.map(value, limit)?,
            _ => {}
        }
        Ok(())
    }

    fn map(&mut self, text: &[u8], limit: usize) -> Result<()> {
        self.extents.clear();
        let mut numbers = text.split(|&byte| byte == b',').map(decimal);
        while let Some(offset) = numbers.next().filter(|_| !text.is_empty()) {
            let length = numbers.next().flatten();
            let pair = offset.zip(length).context("sparse file's map is damaged")?;
            self.add(pair.0, pair.1, limit)?;
        }
        Ok(())
    }

    fn add(&mut self, offset: u64, length: u64, limit: usize) -> Result<()> {
        ensure!(
            self.extents.len() < limit,
            "sparse file has more than {limit} pieces"
        );
        if length > 0 {
            self.extents.push(Extent { offset, length });
        }
        Ok(())
    }

    /// Reads the old form: 4 entries in the header block, 21 in each extension block that follows.
    pub(super) fn old(header: &[u8; BLOCK], input: &mut impl Read, limit: usize) -> Result<Self> {
        let size = numbers::size(&header[483..495]).context("sparse file's size is no number")?;
        let mut sparse = Self {
            size: Some(size),
            ..Self::default()
        };
        let mut more = sparse.old_entries(&header[386..482], limit)? && header[482] != 0;
        let mut block = [0; BLOCK];
        let mut blocks = 0;
        while more {
            blocks += 1;
            ensure!(blocks <= limit, "sparse file has more than {limit} pieces");
            input
                .read_exact(&mut block)
                .context("sparse file's header is cut short")?;
            sparse.old_entries(&block[..GNU_ENTRY * GNU_EXTENSION_ENTRIES], limit)?;
            more = block[GNU_ENTRY * GNU_EXTENSION_ENTRIES] != 0;
        }
        Ok(sparse)
    }

    fn old_entries(&mut self, bytes: &[u8], limit: usize) -> Result<bool> {
        for entry in bytes.chunks_exact(GNU_ENTRY) {
            let (offset, length) = entry.split_at(GNU_ENTRY / 2);
            if offset[0] != 0 || length[0] != 0 {
                let pair = numbers::size(offset)
                    .zip(numbers::size(length))
                    .context("sparse file's map is damaged")?;
                self.add(pair.0, pair.1, limit)?;
            }
        }
        Ok(true)
    }

    /// Reads the map of form 1.0 from the data: lines of decimal digits, padded to a block; returns its length.
    pub(super) fn read_map(&mut self, input: &mut impl Read, limit: usize) -> Result<u64> {
        let mut lines = Lines {
            input,
            block: [0; BLOCK],
            at: BLOCK,
            read: 0,
        };
        let count = lines.number()?;
        for _ in 0..count {
            let (offset, length) = (lines.number()?, lines.number()?);
            self.add(offset, length, limit)?;
        }
        Ok(lines.read)
    }

    /// The extents in order, checked against the size of the file and of its data.
    pub(super) fn checked(self, stored: u64) -> Result<(u64, Vec<Extent>)> {
        let size = self.size.context("sparse file has no size")?;
        let (mut end, mut total) = (0, 0_u64);
        for extent in &self.extents {
            ensure!(
                extent.offset >= end,
                "sparse file's pieces are not in order"
            );
            end = extent
                .offset
                .checked_add(extent.length)
                .context("sparse file's piece ends beyond 64 bits")?;
            total = total.saturating_add(extent.length);
        }
        ensure!(end <= size, "sparse file's piece lies beyond its end");
        ensure!(
            total <= stored,
            "sparse file's pieces are longer than its data"
        );
        Ok((size, self.extents))
    }
}

/// Decimal lines out of blocks.
struct Lines<'a, R> {
    input: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
    read: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::with_capacity(20);
        loop {
            if self.at == BLOCK {
                self.input
                    .read_exact(&mut self.block)
                    .context("sparse file's map is cut short")?;
                self.read += BLOCK as u64;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return decimal(&digits).context("sparse file's map is damaged");
            }
            ensure!(digits.len() < 20, "sparse file's map is damaged");
            digits.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_of_form_one_is_read_from_the_data() {
        let mut data = b"2\n0\n10\n4096\n5\n".to_vec();
        data.resize(512 + 3, 0);
        let mut sparse = Sparse {
            size: Some(5000),
            ..Sparse::default()
        };
        assert_eq!(sparse.read_map(&mut data.as_slice(), 9).expect("map"), 512);
        let (size, extents) = sparse.checked(15).expect("valid");
        assert_eq!(size, 5000);
        assert_eq!(
            extents,
            [
                Extent {
                    offset: 0,
                    length: 10
                },
                Extent {
                    offset: 4096,
                    length: 5
                }
            ]
        );
    }

    #[test]
    fn map_that_lies_is_refused() {
        let checked = |map: &[u8], stored| {
            let mut sparse = Sparse {
                size: Some(100),
                ..Sparse::default()
            };
            sparse.record(b"map", map, 3)?;
            sparse.checked(stored)
        };
        assert!(checked(b"0,10,20,10", 20).is_ok());
        assert!(checked(b"", 0).is_ok());
        assert!(checked(b"0,10,20,10", 19).is_err());
        assert!(checked(b"0,10,5,10", 20).is_err());
        assert!(checked(b"95,10", 20).is_err());
        assert!(checked(b"18446744073709551615,10", 20).is_err());
        assert!(checked(b"0,1,2,1,4,1,6,1", 20).is_err());
        assert!(checked(b"0,10,5", 20).is_err());
    }
}

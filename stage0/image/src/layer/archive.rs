//! A tar read as a stream: header blocks, extended headers, data. Whatever a tar claims, it can make this reader
//! allocate no more than the limits' header size. Numbers and names are those that GNU tar, bsdtar, Go's
//! archive/tar and star write; global extended headers are skipped, as container tools do. Used by the layer
//! reader, on the importing thread.

use std::io::{BufReader, ErrorKind, Read};

use anyhow::{Context, Result, ensure};

use super::member::{Extended, Member, Type};
use super::numbers;
use super::sparse::Sparse;
use crate::limits::Limits;

/// Bytes of a tar block (POSIX.1-2017, pax, "ustar Interchange Format").
const BLOCK: usize = 512;
/// Headers and small files are read this many bytes at a time.
const BUFFER: usize = 128 << 10;

/// A tar being read.
pub(crate) struct Archive<'a, R> {
    input: BufReader<R>,
    limits: &'a Limits,
    /// Bytes the whole input may still have.
    left: &'a mut u64,
    /// Bytes that the extended headers of the current entry may still have together.
    extension_left: u64,
    /// Bytes of the current entry's data not read yet.
    data_left: u64,
    /// Bytes between that data and the next header.
    padding: u64,
}

impl<'a, R: Read> Archive<'a, R> {
    pub(crate) fn new(input: R, limits: &'a Limits, left: &'a mut u64) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            limits,
            left,
            extension_left: 0,
            data_left: 0,
            padding: 0,
        }
    }

    /// The next entry; its data is what `read` yields until then. None at the end, with the input read to its end.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut extended = Extended::default();
        self.extension_left = self.limits.header_bytes as u64;
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else {
                return Ok(None);
            };
            let header = tar::Header::from_byte_slice(&block);
            match block[156] {
                b'x' => {
                    let bytes = self.extension(header)?;
                    extended.take_pax(&bytes, self.limits)?;
                }
                b'L' => extended.path = Some(until_zero(self.extension(header)?)),
                b'K' => extended.target = Some(until_zero(self.extension(header)?)),
                b'g' => self.begin_data(extension_bytes(header)?),
                _ => {
                    let name = extended
                        .path
                        .clone()
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    let member = self.member(&block, extended);
                    return member
                        .map(Some)
                        .with_context(|| crate::erofs::printed(&name));
                }
            }
        }
    }

    fn member(&mut self, block: &[u8; BLOCK], extended: Extended) -> Result<Member> {
        let mut member = Member::new(tar::Header::from_byte_slice(block), extended)?;
        if member.kind == Type::OldSparse {
            ensure!(
                &block[257..263] == b"ustar ",
                "sparse file in a tar that is not GNU's"
            );
            member.sparse = Some(Sparse::old(block, self, self.limits.extents)?);
        }
        self.begin_data(member.stored);
        let limit = self.limits.extents;
        if let Some(sparse) = member.sparse.as_mut().filter(|sparse| sparse.map_in_data) {
            sparse.read_map(&mut Data(self), limit)?;
            member.stored = self.data_left;
        }
        Ok(member)
    }

    /// The current entry's data.
    pub(crate) fn data(&mut self) -> impl Read {
        Data(self)
    }

    /// A header block with a right checksum; None at the end of the tar.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if !self.block_or_end(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            ensure!(
                !self.block_or_end(&mut block)? || block == [0; BLOCK],
                "tar goes on after a block of zeros"
            );
            self.drain()?;
            return Ok(None);
        }
        check_sum(&block)?;
        Ok(Some(block))
    }

    fn block_or_end(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.read(&mut block[filled..]).context("read tar")? {
                0 if filled == 0 => return Ok(false),
                0 => anyhow::bail!("tar is cut short"),
                read => filled += read,
            }
        }
        Ok(true)
    }

    /// The data of an entry that only describes the next one.
    fn extension(&mut self, header: &tar::Header) -> Result<Vec<u8>> {
        let size = extension_bytes(header)?;
        let left = self.extension_left.checked_sub(size);
        self.extension_left = left.with_context(|| {
            format!(
                "extended headers of an entry are larger than the limit of {} bytes",
                self.limits.header_bytes
            )
        })?;
        self.begin_data(size);
        let mut bytes = vec![0; usize::try_from(size)?];
        Data(self)
            .read_exact(&mut bytes)
            .context("tar is cut short")?;
        Ok(bytes)
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_data(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        let padding = self.padding;
        let mut left = self.data_left.saturating_add(padding);
        (self.data_left, self.padding) = (0, 0);
        while left > 0 {
            let part = usize::try_from(left.min(buffer.len() as u64))?;
            let read = self.read(&mut buffer[..part]).context("read tar")?;
            // umoci ends a layer right after the last file's data, unpadded and without an end mark.
            if read == 0 && left == padding {
                return Ok(());
            }
            ensure!(read > 0, "tar is cut short");
            left -= read as u64;
        }
        Ok(())
    }

    /// Reads what follows the end, so that the caller's digest covers all of it.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        while self.read(&mut buffer).context("read tar")? > 0 {}
        Ok(())
    }
}

/// The raw input, held to the limit on all input.
impl<R: Read> Read for Archive<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let left = self.left.checked_sub(read as u64);
        *self.left = left.ok_or_else(|| {
            std::io::Error::other(format!(
                "image is larger than the limit of {} bytes unpacked",
                self.limits.input_bytes
            ))
        })?;
        Ok(read)
    }
}

/// The current entry's data.
struct Data<'b, 'a, R>(&'b mut Archive<'a, R>);

impl<R: Read> Read for Data<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let part = usize::try_from(self.0.data_left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.0.read(&mut buffer[..part])?;
        self.0.data_left -= read as u64;
        Ok(read)
    }
}

fn extension_bytes(header: &tar::Header) -> Result<u64> {
    numbers::size(&header.as_old().size).context("size of an extended header is no number")
}

/// The sum of all bytes with the sum itself as spaces; old tars summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    let told = numbers::number(&block[148..156]).context("not a tar: header without a checksum")?;
    let spaces = 8 * i64::from(b' ');
    let rest = || block[..148].iter().chain(&block[156..]);
    let unsigned = spaces + rest().map(|&byte| i64::from(byte)).sum::<i64>();
    let signed = spaces
        + rest()
            .map(|&byte| i64::from(byte.cast_signed()))
            .sum::<i64>();
    ensure!(
        told == unsigned || told == signed,
        "not a tar: header with a wrong checksum"
    );
    Ok(())
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

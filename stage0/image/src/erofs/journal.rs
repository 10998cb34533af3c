//! What a layer does to the tree, in order, without the data that lie in blocks: enough to lay the layer over others
//! once more without its tar. Written and read by the writer, on the importing thread; compressed by zstd.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::content::{MAX_CHUNKS, chunks_of, move_chunks};
use crate::limits::Limits;
use crate::scratch::{Handle, Scratch};
use crate::tree::{Form, RECORD_BYTES, Record};

/// What a journal begins with, its format's version at the end.
const MAGIC: &[u8; 8] = b"fairing\x01";
/// Most bytes that stand behind a record: a list of chunks.
const EXTRA_MAX: u64 = MAX_CHUNKS * 4;

const PUT: u8 = 1;
const LINK: u8 = 2;
const WHITE_OUT: u8 = 3;
const OPAQUE: u8 = 4;

/// One step; paths are clean.
pub(super) enum Step {
    Put(Vec<u8>, Record),
    /// A path, and another that means the same file.
    Link(Vec<u8>, Vec<u8>),
    WhiteOut(Vec<u8>),
    Opaque(Vec<u8>),
}

/// A journal that is being written.
pub(super) struct Journal(Encoder<'static, File>);

impl Journal {
    /// Begins a journal in the empty `file`.
    pub(super) fn begin(file: File) -> Result<Self> {
        let mut encoder = Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)
            .context("begin a layer's journal")?;
        encoder.write_all(MAGIC).context(WRITING)?;
        Ok(Self(encoder))
    }

    /// Notes an entry, whose blocks are counted from `base`.
    pub(super) fn put(
        &mut self,
        path: &[u8],
        record: &Record,
        scratch: &Scratch,
        base: u32,
    ) -> Result<()> {
        let mut extra = scratch.bytes(record.extra, record.extra_bytes)?;
        let local = moved(record.clone(), &mut extra, base.wrapping_neg());
        let xattrs = scratch.bytes(record.xattrs, record.xattr_bytes)?;
        self.step(PUT, &[path], &[&local.encode(), &extra, &xattrs])
    }

    pub(super) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.step(LINK, &[path, target], &[])
    }

    pub(super) fn white_out(&mut self, path: &[u8]) -> Result<()> {
        self.step(WHITE_OUT, &[path], &[])
    }

    pub(super) fn make_opaque(&mut self, path: &[u8]) -> Result<()> {
        self.step(OPAQUE, &[path], &[])
    }

    fn step(&mut self, kind: u8, paths: &[&[u8]], rest: &[&[u8]]) -> Result<()> {
        let mut bytes = vec![kind];
        for path in paths {
            bytes.extend(u16::try_from(path.len())?.to_le_bytes());
            bytes.extend(*path);
        }
        rest.iter().for_each(|part| bytes.extend(*part));
        self.0.write_all(&bytes).context(WRITING)
    }

    /// Writes what is left.
    pub(super) fn end(self) -> Result<()> {
        self.0.finish().map(drop).context(WRITING)
    }
}

const WRITING: &str = "write a layer's journal";

/// A record and what stands behind it, for blocks that lie that much further on.
fn moved(mut record: Record, extra: &mut [u8], by: u32) -> Record {
    if record.blocks() > 0 {
        record.start = record.start.wrapping_add(by);
    }
    if record.form == Form::Chunked {
        move_chunks(extra, by);
    }
    record
}

/// A journal that is read.
pub(super) struct Steps {
    input: Decoder<'static, BufReader<File>>,
    /// The most that the attributes of an entry take, in bytes.
    xattr_bytes: u64,
    /// Blocks that the layer has, and where they begin in the image.
    blocks: u32,
    base: u32,
}

impl Steps {
    /// Opens the journal in `file` of a layer with that many `blocks`, which begin at block `base`.
    pub(super) fn open(file: File, limits: &Limits, blocks: u32, base: u32) -> Result<Self> {
        let mut input = Decoder::new(file).context("open a layer's journal")?;
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        ensure!(magic == *MAGIC, "it is of another version of fairing");
        Ok(Self {
            input,
            xattr_bytes: limits.xattr_bytes as u64,
            blocks,
            base,
        })
    }

    /// The next step, its bytes put into `scratch`.
    pub(super) fn next(&mut self, scratch: &mut Scratch) -> Result<Option<Step>> {
        let mut kind = [0];
        match self.input.read_exact(&mut kind) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let path = self.path()?;
        Ok(Some(match kind[0] {
            PUT => Step::Put(path, self.record(scratch)?),
            LINK => Step::Link(path, self.path()?),
            WHITE_OUT => Step::WhiteOut(path),
            OPAQUE => Step::Opaque(path),
            other => bail!("a step of kind {other}"),
        }))
    }

    fn path(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 2];
        self.input.read_exact(&mut length)?;
        self.bytes(u64::from(u16::from_le_bytes(length)))
    }

    fn record(&mut self, scratch: &mut Scratch) -> Result<Record> {
        let mut bytes = [0; RECORD_BYTES];
        self.input.read_exact(&mut bytes)?;
        let record = Record::decode(&bytes);
        let (extra, xattrs) = (u64::from(record.extra_bytes), u64::from(record.xattr_bytes));
        ensure!(
            extra <= EXTRA_MAX && xattrs <= self.xattr_bytes,
            "an entry larger than any"
        );
        let mut extra = self.bytes(extra)?;
        let xattrs = self.bytes(xattrs)?;
        let mut record = moved(record, &mut extra, self.base);
        self.check(&record, &extra)?;
        let mut store = |bytes: &[u8]| match bytes {
            [] => Ok(Handle::NONE),
            bytes => scratch.append(&[bytes]),
        };
        (record.extra, record.xattrs) = (store(&extra)?, store(&xattrs)?);
        Ok(record)
    }

    /// Sees that what is said to be in blocks lies in those of the layer.
    fn check(&self, record: &Record, extra: &[u8]) -> Result<()> {
        let is_inside = |first: u32, blocks: u64| {
            let first = u64::from(first.wrapping_sub(self.base));
            first.saturating_add(blocks) <= u64::from(self.blocks)
        };
        let mut inside = record.blocks() == 0 || is_inside(record.start, record.blocks());
        if record.form == Form::Chunked {
            inside = chunks_of(record, extra).all(|(first, blocks)| is_inside(first, blocks));
        }
        ensure!(inside, "an entry outside of its layer");
        Ok(())
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
